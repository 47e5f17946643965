use std::io::Read;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};

use super::*;

/// A folder of its own for each test, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("pollux-run-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("folder");
        Self(path)
    }

    fn run(&self) -> PathBuf {
        self.0.join("run")
    }

    fn mode(&self, path: &str) -> u32 {
        std::fs::symlink_metadata(self.run().join(path)).expect("exists").mode() & 0o7777
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn listen(place: &SocketPlace) -> Result<UnixListener, RunDirError> {
    let socket = place.bind(SocketType::STREAM, SocketFlags::empty(), None)?;
    rustix::net::listen(&socket, 1).expect("listens");
    Ok(UnixListener::from(socket))
}

#[test]
fn modes_are_the_code_s_and_not_the_umask_s() {
    const CHILD: &str = "POLLUX_TEST_RUN_DIR";
    if let Some(path) = std::env::var_os(CHILD) {
        rustix::process::umask(Mode::empty());
        let run = RunDir::ensure(Path::new(&path), 0o711, None).expect("made");
        run.child("control", 0o700, None).expect("made");
        run.log("a.log").expect("made");
        run.write("a.pid", "1\n").expect("made");
        let place = SocketPlace::of(&Path::new(&path).join("a.sock")).expect("a place");
        std::mem::forget(listen(&place).expect("bound"));
        return;
    }
    let folder = Folder::new("umask");
    let me = std::env::current_exe().expect("own binary");
    let status = std::process::Command::new(me)
        .args(["--exact", "run_dir::tests::modes_are_the_code_s_and_not_the_umask_s"])
        .env(CHILD, folder.run())
        .stdout(std::process::Stdio::null())
        .status()
        .expect("child");
    assert!(status.success());
    assert_eq!(folder.mode(""), 0o711);
    assert_eq!(folder.mode("control"), 0o700);
    assert_eq!([folder.mode("a.log"), folder.mode("a.pid"), folder.mode("a.sock")], [0o600; 3]);
}

#[test]
fn a_mode_that_was_left_open_is_closed() {
    let folder = Folder::new("open");
    std::fs::create_dir(folder.run()).expect("made");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(folder.run(), open).expect("opened");
    RunDir::ensure(&folder.run(), 0o700, None).expect("taken");
    assert_eq!(folder.mode(""), 0o700);
}

#[test]
fn links_that_another_user_has_put_there_are_not_followed() {
    let folder = Folder::new("links");
    let victim = folder.0.join("victim");
    std::fs::write(&victim, "precious").expect("written");
    std::fs::create_dir(folder.0.join("elsewhere")).expect("made");
    let run = RunDir::ensure(&folder.run(), 0o700, None).expect("made");
    for name in ["a.log", "a.sock"] {
        symlink(&victim, folder.run().join(name)).expect("a link");
    }
    symlink(folder.0.join("elsewhere"), folder.run().join("control")).expect("a link");
    std::fs::hard_link(&victim, folder.run().join("b.log")).expect("a second name");
    assert!(run.log("a.log").is_err() && run.write("a.log", "x").is_err() && run.log("b.log").is_err());
    assert!(matches!(run.child("control", 0o700, None), Err(RunDirError::NotDirectory { .. })));
    let place = SocketPlace::of(&folder.run().join("a.sock")).expect("a place");
    let listener = listen(&place).expect("the link is replaced");
    assert!(UnixStream::connect(place.path()).is_ok());
    drop(listener);
    let mut text = String::new();
    File::open(&victim).and_then(|mut file| file.read_to_string(&mut text)).expect("still there");
    assert_eq!(text, "precious");
    // The whole folder as a link.
    symlink(folder.0.join("elsewhere"), folder.0.join("linked")).expect("a link");
    let linked = RunDir::ensure(&folder.0.join("linked"), 0o700, None);
    assert!(matches!(linked, Err(RunDirError::NotDirectory { .. })));
}

#[test]
fn a_folder_of_another_user_is_refused_and_root_s_is_given_away_only_where_asked() {
    if rustix::process::geteuid().as_raw() != 0 {
        eprintln!("SKIP: folders of several users need root");
        return;
    }
    let folder = Folder::new("owner");
    let run = RunDir::ensure(&folder.run(), 0o711, None).expect("made");
    run.child("control", 0o700, Some(4_242)).expect("given to control's user");
    run.child("control", 0o700, Some(4_242)).expect("and taken again");
    assert_eq!(std::fs::metadata(folder.run().join("control")).expect("there").uid(), 4_242);
    let refused = run.child("control", 0o700, None).expect_err("not root's").to_string();
    assert!(refused.contains("belongs to user 4242") && refused.contains("chown 0"), "{refused}");
    std::os::unix::fs::chown(folder.run(), Some(4_242), None).expect("chown");
    assert!(matches!(RunDir::ensure(&folder.run(), 0o711, None), Err(RunDirError::Owner { .. })));
}

#[test]
fn a_socket_that_answers_is_left_and_one_that_does_not_is_replaced() {
    let folder = Folder::new("sockets");
    RunDir::ensure(&folder.run(), 0o700, None).expect("made");
    let place = SocketPlace::of(&folder.run().join("a.sock")).expect("a place");
    let first = listen(&place).expect("bound");
    assert!(matches!(listen(&place), Err(RunDirError::InUse { .. })));
    drop(first);
    let second = listen(&place).expect("what was left is replaced");
    place.remove();
    assert!(!place.path().exists());
    drop(second);
}
