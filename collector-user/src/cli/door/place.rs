//! Where the door is: a socket in the file system, which a collector takes, and leaves.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::{
        fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    process,
};

use rustix::{
    fs::{CWD, Mode, RenameFlags, fchmod, renameat_with},
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with},
};

use super::DoorError;
use crate::config::Socket;

/// The folder of sockets that nobody gave a place.
const FOLDER: &str = "/run/collector";

/// Visitors that may wait before the door.
const WAITING: i32 = 16;

/// The socket of a collector that was given none, by the number of its network namespace: those that share one see the same
/// interfaces.
pub(in crate::cli) fn usual() -> io::Result<PathBuf> {
    let namespace = fs::metadata("/proc/thread-self/ns/net")?.ino();
    Ok(Path::new(FOLDER).join(format!("{namespace}.sock")))
}

/// A place that was taken; free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    id: Id,
}

/// Tells files apart: the device and the inode.
type Id = (u64, u64);

impl Place {
    /// Takes a place, and listens there. What a collector has left that is no more is replaced; one that lives keeps its own.
    pub(super) fn take(socket: &Socket) -> Result<(Self, UnixListener), DoorError> {
        let path = if let Some(path) = socket.path() {
            path.to_owned()
        } else {
            make_folder()?;
            usual().map_err(DoorError::Namespace)?
        };
        let failed = |source: io::Error| DoorError::Listen { path: path.clone(), source };
        // Under another name until somebody listens: else others take it for one that was left.
        let mut early = path.as_os_str().to_owned();
        early.push(format!(".{}", process::id()));
        let early = PathBuf::from(early);
        let listening = serve_at(&early).map_err(failed)?;
        let taken = identify(&early).map_err(failed).and_then(|id| {
            put(&early, &path)?;
            Ok(Self { path: path.clone(), id })
        });
        if taken.is_err() {
            let _ = fs::remove_file(&early);
        }
        Ok((taken?, listening))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Somebody may have removed it, and another may have it by now.
        if identify(&self.path).is_ok_and(|id| id == self.id) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn make_folder() -> Result<(), DoorError> {
    let made = match DirBuilder::new().mode(0o755).create(FOLDER) {
        // Whatever this process takes off the modes of its files.
        Ok(()) => fs::set_permissions(FOLDER, Permissions::from_mode(0o755)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    };
    made.map_err(|source| DoorError::Folder { path: FOLDER.into(), source })
}

/// A socket that takes connections of its owner's.
fn serve_at(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        // Of a process of the same number that ended just then.
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let socket = socket()?;
    // unix_bind (net/unix/af_unix.c) gives the file the mode of the socket, less the umask: nobody finds it open to others.
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, WAITING)?;
    Ok(socket.into())
}

fn socket() -> rustix::io::Result<rustix::fd::OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// Gives a socket its name, unless somebody answers to that.
fn put(early: &Path, path: &Path) -> Result<(), DoorError> {
    let failed = |source: Errno| DoorError::Listen { path: path.to_owned(), source: source.into() };
    let exchange = || renameat_with(CWD, early, CWD, path, RenameFlags::EXCHANGE);
    loop {
        match renameat_with(CWD, early, CWD, path, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(()),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(failed(error)),
        }
        let Some(left) = left_behind(path)? else { continue };
        match exchange() {
            Ok(()) => {}
            // Somebody has removed it meanwhile.
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(failed(error)),
        }
        if identify(early).is_ok_and(|id| id == left) {
            let _ = fs::remove_file(early);
            return Ok(());
        }
        // Another collector was faster.
        exchange().map_err(failed)?;
        return Err(DoorError::Taken { path: path.to_owned() });
    }
}

/// The socket that somebody has left, where there is still one.
fn left_behind(path: &Path) -> Result<Option<Id>, DoorError> {
    let failed = |source: io::Error| DoorError::Listen { path: path.to_owned(), source };
    let file = match fs::symlink_metadata(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if !file.file_type().is_socket() {
        return Err(DoorError::NoSocket { path: path.to_owned() });
    }
    let address = SocketAddrUnix::new(path).map_err(|error| failed(error.into()))?;
    let trying = socket().map_err(|error| failed(error.into()))?;
    match connect(&trying, &address) {
        // So many wait before it that one more is turned away (EAGAIN): there is somebody.
        Ok(()) | Err(Errno::AGAIN) => Err(DoorError::Taken { path: path.to_owned() }),
        Err(Errno::CONNREFUSED) => Ok(Some((file.dev(), file.ino()))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(failed(error.into())),
    }
}

fn identify(path: &Path) -> io::Result<Id> {
    let file = fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::{
            fs::{MetadataExt as _, PermissionsExt as _},
            net::{UnixListener, UnixStream},
        },
    };

    use super::{DoorError, Place};
    use crate::{cli::door::tests::Folder, config::Socket};

    #[test]
    fn a_place_is_its_owners_alone_and_free_again_in_the_end() {
        let folder = Folder::new();
        let path = folder.0.join("s");
        let (place, _listening) = Place::take(&Socket::At(path.clone())).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1, "it has one name");
        UnixStream::connect(&path).unwrap();
        drop(place);
        assert!(!path.exists());
    }

    #[test]
    fn who_lives_keeps_the_place_and_who_does_not_is_replaced() {
        let folder = Folder::new();
        let path = folder.0.join("s");
        let living = UnixListener::bind(&path).unwrap();
        let taken = Place::take(&Socket::At(path.clone())).unwrap_err();
        assert!(matches!(taken, DoorError::Taken { .. }), "{taken}");
        let before = fs::metadata(&path).unwrap().ino();
        drop(living);
        let (place, _listening) = Place::take(&Socket::At(path.clone())).unwrap();
        assert_ne!(fs::metadata(&path).unwrap().ino(), before);
        UnixStream::connect(&path).unwrap();
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
        // What is another's by now is left alone.
        fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(place);
        assert!(path.exists());
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let folder = Folder::new();
        let path = folder.0.join("s");
        fs::write(&path, "precious").unwrap();
        let refused = Place::take(&Socket::At(path.clone())).unwrap_err();
        assert!(matches!(refused, DoorError::NoSocket { .. }), "{refused}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
        let nowhere = Place::take(&Socket::At(folder.0.join("no/such"))).unwrap_err();
        assert!(matches!(nowhere, DoorError::Listen { .. }), "{nowhere}");
    }
}
