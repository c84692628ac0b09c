//! What `teamd` does for a team device, as far as a test needs it: the kernel asks for a mode by generic netlink, and
//! `ip` does not know how to say it. A message is octets here, as `include/uapi/linux/if_team.h` has them.

use std::os::fd::OwnedFd;

use anyhow::{Context as _, ensure};
use collector_tests::{Result, lab::End};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, netlink, recv, send, socket_with,
};

/// `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY`, `CTRL_ATTR_FAMILY_ID`, `CTRL_ATTR_FAMILY_NAME` (`include/uapi/linux/genetlink.h`).
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// `TEAM_CMD_OPTIONS_SET`, and the attributes from the outermost to the innermost.
const SET_OPTIONS: u8 = 1;
const TEAM: u16 = 1;
const OPTIONS: u16 = 2;
const OPTION: u16 = 1;
const NAME: u16 = 1;
const TYPE: u16 = 3;
const DATA: u16 = 4;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;
/// `NLA_U32`, `NLA_STRING` (`include/net/netlink.h`).
const U32: u8 = 3;
const STRING: u8 = 5;
/// `NLMSG_ERROR`, `NLM_F_REQUEST | NLM_F_ACK` (`include/uapi/linux/netlink.h`).
const ERROR: u16 = 2;
const ASKS_FOR_ANSWER: u16 = 1 | 4;
/// `-ESRCH`, of a multicast without listeners.
const NOBODY_LISTENS: i32 = -3;
const HEADER: usize = 16;
const GENERIC: usize = 4;

/// Gives a team device a mode, which it may not have once it has ports.
pub(crate) fn set_mode(team: &End, mode: &str) -> Result<()> {
    set(team, "mode", STRING, &string(mode))
}

/// Makes a port the one that carries all, in mode `activebackup`.
pub(crate) fn set_active(team: &End, port: u32) -> Result<()> {
    set(team, "activeport", U32, &port.to_ne_bytes())
}

fn set(team: &End, option: &str, kind: u8, data: &[u8]) -> Result<()> {
    let index = team.index()?;
    team.place.within(|| {
        let socket = socket()?;
        let option =
            [attribute(NAME, &string(option)), attribute(TYPE, &[kind]), attribute(DATA, data)].concat();
        let options = attribute(OPTIONS | NESTED, &attribute(OPTION | NESTED, &option));
        let body = [attribute(TEAM, &index.to_ne_bytes()), options].concat();
        ask(&socket, family(&socket)?, SET_OPTIONS, &body).map(drop)
    })
}

fn socket() -> Result<OwnedFd> {
    let generic = Some(netlink::GENERIC);
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, generic)?;
    bind(&socket, &netlink::SocketAddrNetlink::new(0, 0))?;
    Ok(socket)
}

/// The number that the kernel has given the family of team devices.
fn family(socket: &OwnedFd) -> Result<u16> {
    let answer = ask(socket, CONTROLLER, GET_FAMILY, &attribute(FAMILY_NAME, &string("team")))?;
    let mut rest = answer.get(HEADER + GENERIC..).context("the controller answers")?;
    while let [low, high, kind_low, kind_high, ..] = *rest {
        let length = usize::from(u16::from_ne_bytes([low, high]));
        if u16::from_ne_bytes([kind_low, kind_high]) == FAMILY_ID {
            return Ok(u16::from_ne_bytes([rest[4], rest[5]]));
        }
        rest = rest.get(length.next_multiple_of(4).max(4)..).unwrap_or_default();
    }
    anyhow::bail!("the kernel has no family `team`: {answer:?}")
}

/// Sends a question, and returns the first answer that is no acknowledgement, if there is one.
fn ask(socket: &OwnedFd, family: u16, command: u8, body: &[u8]) -> Result<Vec<u8>> {
    let length = (HEADER + GENERIC + body.len()) as u32;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend([family, ASKS_FOR_ANSWER].map(u16::to_ne_bytes).concat());
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.extend(body);
    send(socket, &message, SendFlags::empty())?;
    let mut answer = Vec::new();
    loop {
        let mut buffer = vec![0; 8192];
        let (length, _) = recv(socket, &mut buffer[..], RecvFlags::empty())?;
        buffer.truncate(length);
        if u16::from_ne_bytes([buffer[4], buffer[5]]) != ERROR {
            answer = buffer;
            continue;
        }
        let code = i32::from_ne_bytes([buffer[16], buffer[17], buffer[18], buffer[19]]);
        // What was set is told to whoever listens, last of all, and that nobody does is an error.
        let is_done = code == 0 || (command == SET_OPTIONS && code == NOBODY_LISTENS);
        ensure!(is_done, "command {command}: {}", std::io::Error::from_raw_os_error(-code));
        return Ok(answer);
    }
}

fn attribute(kind: u16, data: &[u8]) -> Vec<u8> {
    let length = (4 + data.len()) as u16;
    let mut octets = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    octets.extend(data);
    octets.resize(octets.len().next_multiple_of(4), 0);
    octets
}

fn string(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}
