//! Paths as hosts have them.

use super::{Kind, Workload, of};

const ID: &str = "4f5e5e1c6d0a2b1a0c1e7f6b5a4938271605f4e3d2c1b0a99887766554433221";
const OTHER: &str = "0b0b0b0b1c1c1c1c2d2d2d2d3e3e3e3e4f4f4f4f5a5a5a5a6b6b6b6b7c7c7c7c";
const UID: &str = "3f4a7c1e-9b2d-4c58-8e1f-0a1b2c3d4e5f";
const UNIT_UID: &str = "3f4a7c1e_9b2d_4c58_8e1f_0a1b2c3d4e5f";

fn path(text: &str) -> String {
    text.replace("OTHER", OTHER).replace("UNIT_UID", UNIT_UID).replace("UID", UID).replace("ID", ID)
}

fn found(text: &str) -> Workload {
    of(&path(text)).unwrap_or_else(|| panic!("{text} is nothing"))
}

/// A path is a container of this runtime, whose cgroup is `root` and whose tags but the first are these.
fn is_container(text: &str, runtime: &str, root: &str, tags: &[&str]) {
    let found = found(text);
    let mut want = vec![format!("runtime={runtime}")];
    want.extend(tags.iter().map(|tag| path(tag)));
    assert_eq!((found.kind, found.manager), (Kind::Container, runtime), "{text}");
    assert_eq!((found.root, found.tags), (path(root), want), "{text}");
}

fn is_unit(text: &str, kind: Kind, id: &str, root: &str, tags: &[&str]) {
    let want = Workload {
        id: id.to_owned(),
        kind,
        manager: "systemd",
        tags: tags.iter().map(ToString::to_string).collect(),
        root: root.to_owned(),
    };
    assert_eq!(found(text), want, "{text}");
}

#[test]
fn services() {
    let nginx = ["unit=nginx.service", "slice=system.slice"];
    for path in [
        "/system.slice/nginx.service",
        "/system.slice/nginx.service/a/b.scope",
        "/system.slice/nginx.service/init.scope",
    ] {
        is_unit(path, Kind::Service, "nginx.service", "/system.slice/nginx.service", &nginx);
    }
    let getty = "/system.slice/system-getty.slice/getty@tty1.service";
    is_unit(
        getty,
        Kind::Service,
        "getty@tty1.service",
        getty,
        &["unit=getty@tty1.service", "slice=system-getty.slice"],
    );
    let fsck = r"/system.slice/system-systemd\x2dfsck.slice/systemd-fsck@dev-disk-by\x2duuid-0a.service";
    let unit = r"systemd-fsck@dev-disk-by\x2duuid-0a.service";
    is_unit(
        fsck,
        Kind::Service,
        unit,
        fsck,
        &[&format!("unit={unit}"), r"slice=system-systemd\x2dfsck.slice"],
    );
    is_unit("/a.service", Kind::Service, "a.service", "/a.service", &["unit=a.service"]);
    let openrc = found("/openrc.sshd/x");
    assert_eq!((openrc.id.as_str(), openrc.manager, openrc.kind), ("sshd", "openrc", Kind::Service));
    assert_eq!(openrc.root, "/openrc.sshd");
}

#[test]
fn services_of_users() {
    let manager = "/user.slice/user-1000.slice/user@1000.service";
    let foo = format!("{manager}/app.slice/foo.service");
    let tags = ["unit=foo.service", "slice=app.slice", "user=1000"];
    is_unit(&format!("{foo}/sub"), Kind::Service, "user-1000/foo.service", &foo, &tags);
    let tags = ["unit=user@1000.service", "slice=user-1000.slice", "user=1000"];
    for own in ["", "/init.scope", "/app.slice", "/init.scope/x"] {
        is_unit(&format!("{manager}{own}"), Kind::Service, "user@1000.service", manager, &tags);
    }
    let scope = format!("{manager}/app.slice/app-gnome-firefox-4711.scope");
    let tags = ["unit=app-gnome-firefox-4711.scope", "slice=app.slice", "user=1000"];
    is_unit(&scope, Kind::Scope, "user-1000/app-gnome-firefox-4711.scope", &scope, &tags);
    // A manager's name inside of another's is a unit like others.
    let fake = format!("{manager}/user@0.service");
    let tags = ["unit=user@0.service", "slice=user-1000.slice", "user=1000"];
    is_unit(&format!("{fake}/x.service"), Kind::Service, "user-1000/user@0.service", &fake, &tags);
}

#[test]
fn scopes() {
    let session = "/user.slice/user-1000.slice/session-3.scope";
    let tags = ["unit=session-3.scope", "slice=user-1000.slice", "user=1000"];
    is_unit(session, Kind::Scope, "session-3.scope", session, &tags);
    is_unit("/init.scope", Kind::Scope, "init.scope", "/init.scope", &["unit=init.scope"]);
    let run = "/system.slice/run-r0a1b.scope";
    is_unit(run, Kind::Scope, "run-r0a1b.scope", run, &["unit=run-r0a1b.scope", "slice=system.slice"]);
}

#[test]
fn docker() {
    let id = "container_id=ID";
    is_container("/docker/ID", "docker", "/docker/ID", &[id]);
    assert_eq!(found("/docker/ID").id, "4f5e5e1c6d0a");
    let scope = "/system.slice/docker-ID.scope";
    is_container(scope, "docker", scope, &[id, "slice=system.slice"]);
    let scope = "/custom.slice/docker-ID.scope";
    is_container(scope, "docker", scope, &[id, "slice=custom.slice"]);
    let rootless = "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-ID.scope";
    is_container(rootless, "docker", rootless, &[id, "slice=user.slice", "user=1000"]);
    let named = "/user.slice/user-1000.slice/user@1000.service/docker.service/docker/ID";
    is_container(named, "docker", named, &[id, "unit=docker.service", "slice=user-1000.slice", "user=1000"]);
    // `--cgroup-parent /jobs`: nobody has left a name.
    is_container("/jobs/ID", "unknown", "/jobs/ID", &[id]);
    is_container("/ecs/0a1b2c/ID", "unknown", "/ecs/0a1b2c/ID", &[id]);
    let wrong = "/system.slice:docker:ID";
    is_container(wrong, "docker", wrong, &[id]);
    for parent in ["/docker", "", "/jobs"] {
        let build = &format!("{parent}/buildkit/xfw0m1qx3nq9tk2kqv3h6u5pl");
        is_container(build, "buildkit", build, &[]);
        assert_eq!(found(build).id, "xfw0m1qx3nq9tk2kqv3h6u5pl");
    }
}

#[test]
fn the_outermost_container_has_what_is_in_it() {
    let node = "/docker/ID";
    is_container("/docker/ID/docker/OTHER", "docker", node, &["container_id=ID"]);
    is_container("/docker/ID/system.slice/nginx.service", "docker", node, &["container_id=ID"]);
    let pod = "/system.slice/docker-ID.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podUNIT_UID.slice";
    let tags = ["container_id=ID", "slice=system.slice"];
    let inside = format!("{pod}/cri-containerd-OTHER.scope");
    is_container(&inside, "docker", "/system.slice/docker-ID.scope", &tags);
}

#[test]
fn podman() {
    let id = "container_id=ID";
    is_container("/libpod_parent/libpod-ID", "podman", "/libpod_parent/libpod-ID", &[id]);
    let scope = "/machine.slice/libpod-ID.scope";
    for below in ["", "/container", "/container/init.scope", "/container/system.slice/a.service"] {
        is_container(&format!("{scope}{below}"), "podman", scope, &[id, "slice=machine.slice"]);
    }
    let manager = "/user.slice/user-1000.slice/user@1000.service";
    let rootless = format!("{manager}/user.slice/libpod-ID.scope");
    is_container(
        &format!("{rootless}/container"),
        "podman",
        &rootless,
        &[id, "slice=user.slice", "user=1000"],
    );
    let quadlet = "/system.slice/web.service/libpod-payload-ID";
    is_container(quadlet, "podman", quadlet, &[id, "unit=web.service", "slice=system.slice"]);
    let pod = "/machine.slice/machine-libpod_pod_OTHER.slice/libpod-ID.scope";
    let slice = format!("slice=machine-libpod_pod_{OTHER}.slice");
    is_container(pod, "podman", pod, &[id, "pod_id=OTHER", &slice]);

    assert_eq!(of(&path("/machine.slice/libpod-conmon-ID.scope")), None);
    assert_eq!(of(&path("/libpod_parent/libpod-conmon-ID")), None);
    assert_eq!(found("/system.slice/web.service/libpod-conmon-ID.scope").id, "web.service");
    let of_user = found(&format!("{manager}/user.slice/libpod-conmon-ID.scope"));
    assert_eq!(of_user.id, "user@1000.service");
}

#[test]
fn containerd() {
    let id = "container_id=ID";
    is_container("/default/ID", "containerd", "/default/ID", &[id]);
    is_container("/default/redis/x", "containerd", "/default/redis", &[]);
    assert_eq!(found("/default/redis").id, "redis");
    is_container("/k8s.io/ID", "containerd", "/k8s.io/ID", &[id]);
    is_container("/mine/ID", "unknown", "/mine/ID", &[id]);
    let nerdctl = "/system.slice/nerdctl-ID.scope";
    is_container(nerdctl, "containerd", nerdctl, &[id, "slice=system.slice"]);
    assert_eq!(of("/default"), None);
    assert_eq!(of("/mine/redis"), None);
}

#[test]
fn kubernetes() {
    let (id, uid) = ("container_id=ID", "pod_uid=UID");
    for (class, qos) in [("/burstable", "burstable"), ("/besteffort", "besteffort"), ("", "guaranteed")] {
        let qos = format!("qos={qos}");
        let cgroupfs = format!("/kubepods{class}/podUID/ID");
        is_container(&cgroupfs, "unknown", &cgroupfs, &[id, uid, &qos]);
        let slice = class.replace('/', "-");
        let pod = format!("kubepods{slice}-podUNIT_UID.slice");
        for (prefix, runtime) in [("cri-containerd", "containerd"), ("crio", "cri-o"), ("docker", "docker")] {
            let systemd = format!("/kubepods.slice/kubepods{slice}.slice/{pod}/{prefix}-ID.scope");
            let slice = path(&format!("slice={pod}"));
            is_container(&systemd, runtime, &systemd, &[id, uid, &qos, &slice]);
        }
    }
    let crio = "/kubepods/burstable/podUID/crio-ID";
    is_container(crio, "cri-o", crio, &[id, uid, "qos=burstable"]);
    assert_eq!(of(&path("/kubepods.slice/kubepods-podUNIT_UID.slice/crio-conmon-ID.scope")), None);
    // A static pod's UID is a hash.
    let hash = "0a1b2c3d4e5f60718293a4b5c6d7e8f9";
    let fixed = format!("/kubepods/burstable/pod{hash}/ID");
    is_container(&fixed, "unknown", &fixed, &[id, &format!("pod_uid={hash}"), "qos=burstable"]);
    // k3s, whose drivers differ.
    let mixed = "/kubepods-besteffort-podUNIT_UID.slice:cri-containerd:ID";
    is_container(mixed, "containerd", mixed, &[id, uid, "qos=besteffort"]);
    assert_eq!(of(&path("/kubepods/burstable/podUID")), None);
}

#[test]
fn machines() {
    for (path, runtime, root, id) in [
        ("/lxc/web/ns", "lxc", "/lxc/web", "web"),
        ("/lxc.payload.web/init.scope", "lxc", "/lxc.payload.web", "web"),
        ("/lxc.payload.web-01.scope/x", "lxc", "/lxc.payload.web-01.scope", "web-01"),
        ("/lxc.payload/101", "lxc", "/lxc.payload/101", "101"),
    ] {
        is_container(path, runtime, root, &[]);
        assert_eq!(found(path).id, id);
    }
    for monitor in ["/lxc.monitor.web", "/lxc.monitor/101", "/lxc.monitor.web/init.scope"] {
        assert_eq!(of(monitor), None, "{monitor}");
    }
    for (unit, runtime, id) in [
        (r"machine-my\x2dbox.scope", "nspawn", "my-box"),
        ("systemd-nspawn@my-box.service", "nspawn", "my-box"),
        (r"machine-qemu\x2d7\x2dvm\x2done.scope", "libvirt", "vm-one"),
        (r"machine-lxc\x2d4711\x2dweb.scope", "libvirt", "web"),
        (r"machine-qemu\x2dx.scope", "nspawn", "qemu-x"),
    ] {
        let path = format!("/machine.slice/{unit}");
        is_container(&format!("{path}/payload/init.scope"), runtime, &path, &["slice=machine.slice"]);
        assert_eq!(found(&path).id, id);
    }
    is_container(
        "/system.slice/crun-job.scope/container",
        "crun",
        "/system.slice/crun-job.scope",
        &["slice=system.slice"],
    );
    is_container(
        "/system.slice/runc-job.scope",
        "runc",
        "/system.slice/runc-job.scope",
        &["slice=system.slice"],
    );
}

#[test]
fn what_is_nothing_of_its_own() {
    for path in [
        "",
        "/",
        "//",
        "/system.slice",
        "/user.slice/user-1000.slice",
        "/job",
        "/docker",
        "/lxc",
        "/docker/web",
        "/buildkit/web",
        "/docker/buildkit",
        "/..",
        "/../x",
    ] {
        assert_eq!(of(path), None, "{path}");
    }
    // One digit less, or in capitals.
    assert_eq!(of(&format!("/docker/{}", &ID[1..])), None);
    assert_eq!(of(&format!("/docker/{}", ID.to_uppercase())), None);
}

#[test]
fn hostile_names_are_nothing() {
    let long = "a".repeat(300);
    for path in [
        "/a b.service",
        "/\u{1b}[31m.service",
        "/x\n.scope",
        "/default/\u{7f}",
        "/lxc/a\tb",
        "/lxc.payload.",
        "/.service",
        "/lxc.payload.\u{FFFD}",
        "/docker-.scope\u{0}",
        "/-",
        "/:",
        "/::",
        "/pod",
        &format!("/lxc/{long}"),
        &format!("/{long}{long}"),
    ] {
        assert_eq!(of(path), None, "{path:?}");
    }
    assert_eq!(found("/machine-.scope").kind, Kind::Scope);
    // An escape that would bring such a character back stays one.
    assert_eq!(found(r"/machine-a\x0ab.scope").id, r"a\x0ab");
    assert_eq!(found(r"/machine-a\x2fb.scope").id, r"a\x2fb");
    let deep = "/a".repeat(100_000);
    assert_eq!(of(&deep), None);
}
