//! Files that users really write, and every line that they are told.
//!
//! `POLLUX_BLESS=1 cargo test -p pollux-config --test golden` writes what is said now; read the difference.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn broken() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broken");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    files
}

#[test]
fn every_mistake_of_a_broken_file_is_told_with_line_key_reason_and_mend() {
    let bless = std::env::var_os("POLLUX_BLESS").is_some();
    let mut wrong = String::new();
    let files = broken();
    assert!(files.len() >= 12, "only {} files", files.len());
    for path in files {
        let text = std::fs::read_to_string(&path).expect("readable");
        let name = Path::new(path.file_name().expect("a name"));
        let said = match pollux_config::parse(name, &text) {
            Ok(_) => "nothing is wrong\n".to_owned(),
            Err(problems) => format!("{problems}\n"),
        };
        let golden = path.with_extension("expected");
        if bless {
            std::fs::write(&golden, &said).expect("written");
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        if said != expected {
            let _ = write!(wrong, "{}\n--- expected\n{expected}--- said\n{said}", name.display());
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn every_line_about_a_broken_file_has_a_reason_and_a_mend() {
    for path in broken() {
        let text = std::fs::read_to_string(&path).expect("readable");
        let problems = pollux_config::parse(&path, &text).expect_err("it is broken");
        for problem in problems.0 {
            assert!(problem.line > 0 && !problem.reason.is_empty() && !problem.fix.is_empty(), "{problem}");
            assert!(!problem.to_string().contains('\n'), "{problem}");
        }
    }
}

/// A configuration with one SA and a secrets file of this text and mode.
fn with_secrets(name: &str, secrets: &str, mode: u32) -> String {
    use std::os::unix::fs::PermissionsExt;
    let folder = std::env::temp_dir().join(format!("pollux-golden-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("folder");
    let (config, file) = (folder.join("pollux.toml"), folder.join("secrets.toml"));
    let text = "[paths]\nsecrets = \"secrets.toml\"\n[dataplane]\nwan = \"w\"\nlan = \"l\"\n\
        [[sa]]\nname = \"to-b\"\ndirection = \"out\"\nspi = 4096\nsuite = \"aes128gcm16\"\nkey = \"to-b\"\n\
        local = \"192.0.2.1\"\nremote = \"192.0.2.2\"\nreqid = 1\n\
        [[policy]]\nname = \"p\"\ndirection = \"out\"\naction = \"protect\"\nreqid = 1\n\
        local_ts = \"10.1.0.0/16\"\nremote_ts = \"10.2.0.0/16\"\n";
    std::fs::write(&config, text).expect("written");
    std::fs::write(&file, secrets).expect("written");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("mode");
    let said = pollux_config::load_with_secrets(&config)
        .map_or_else(|problems| problems.to_string(), |_| String::new());
    let _ = std::fs::remove_dir_all(&folder);
    said.replace(&format!("{}/", folder.display()), "")
}

#[test]
fn mistakes_of_the_secrets_file_are_told_without_the_secrets() {
    let key = "000102030405060708090a0b0c0d0e0f10111213";
    assert_eq!(with_secrets("right", &format!("[keys]\nto-b = \"0x{key}\"\n"), 0o600), "");
    for (name, secrets, mode, said) in [
        (
            "mode",
            format!("[keys]\nto-b = \"0x{key}\"\n"),
            0o644,
            "secrets.toml: others can read or write it (mode 644); chmod 600 secrets.toml",
        ),
        (
            "missing",
            format!("[keys]\nto_b = \"0x{key}\"\n"),
            0o600,
            "pollux.toml:6: sa.to-b.key: no key `to-b` in the secrets file; did you mean `to_b`?",
        ),
        (
            "short",
            format!("[keys]\nto-b = \"0x{}\"\n", &key[..32]),
            0o600,
            "pollux.toml:6: sa.to-b.key: key `to-b` has 16 octets, and aes128gcm16 takes 20 (16 of key, 4 of salt); \
             draw one: openssl rand -hex 20",
        ),
        (
            "digits",
            format!("[keys]\nto-b = \"0x{}zz\"\n", &key[2..]),
            0o600,
            "secrets.toml:2: keys.to-b: is not hexadecimal; write \"0x\" and an even number of hexadecimal digits: \
             the key, then the salt (40 digits for aes128gcm16)",
        ),
        (
            "weak",
            format!("[keys]\nto-b = \"0x{key}\"\n[psk]\noffice = \"hunter2\"\n"),
            0o600,
            "secrets.toml:4: psk.office: has 7 octets; a recorded handshake can be searched for one so short; \
             draw one: openssl rand -hex 32, and write 0x before it",
        ),
    ] {
        assert_eq!(with_secrets(name, &secrets, mode), said);
    }
}

#[test]
fn a_connection_that_no_key_can_be_of_is_a_mistake() {
    use std::os::unix::fs::PermissionsExt;
    let key = "\"0x6a7f0c1d2e3f405162738495a6b7c8d9\"";
    let folder = std::env::temp_dir().join(format!("pollux-psk-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let (file, secrets) = (folder.join("pollux.toml"), folder.join("secrets.toml"));
    // What the connection says of psk and ids; the secrets; whether a key may be found.
    for (connection, psk, found) in [
        ("", String::new(), false),
        ("", format!("office = {key}"), false),
        ("psk = \"office\"", format!("office = {key}"), true),
        ("", format!("[psk.x]\nids = [\"b.example\"]\nsecret = {key}"), true),
        ("remote.id = \"b.example\"", format!("[psk.x]\nids = [\"B.example\"]\nsecret = {key}"), true),
        ("remote.id = \"fqdn:b.example\"", format!("[psk.x]\nids = [\"@b.example\"]\nsecret = {key}"), true),
        ("remote.id = \"b.example\"", format!("[psk.x]\nids = [\"c.example\"]\nsecret = {key}"), false),
        ("remote.id = \"b.example\"", format!("[psk.x]\nids = [\"*.example\"]\nsecret = {key}"), true),
        ("remote.id = \"*.a.example\"", format!("[psk.x]\nids = [\"p.a.example\"]\nsecret = {key}"), true),
        ("remote.id = \"*.a.example\"", format!("[psk.x]\nids = [\"*.b.example\"]\nsecret = {key}"), false),
        ("remote.id = \"b.example\"", format!("[psk.x]\nids = [\"%any\"]\nsecret = {key}"), true),
        (
            "local.id = \"a.example\"\nremote.id = \"b.example\"",
            format!("[psk.x]\nids = [\"a.example\"]\nsecret = {key}"),
            true,
        ),
        (
            "local.id = \"a.example\"\nremote.id = \"b.example\"",
            format!("[psk.x]\nids = [\"a.example\", \"c.example\"]\nsecret = {key}"),
            false,
        ),
        ("remote.id = \"2001:db8::1\"", format!("[psk.x]\nids = [\"2001:DB8:0::1\"]\nsecret = {key}"), true),
    ] {
        let text = format!(
            "[paths]\nsecrets = \"secrets.toml\"\n[dataplane]\nwan = \"w\"\nlan = \"l\"\n[[connection]]\nname = \"c\"\n\
             {connection}\n[connection.children.n]\nlocal_ts = \"10.1.0.0/16\"\nremote_ts = \"10.2.0.0/16\"\n"
        );
        std::fs::write(&file, text).expect("written");
        let _ = std::fs::remove_file(&secrets);
        std::fs::write(&secrets, format!("[psk]\n{psk}\n")).expect("written");
        std::fs::set_permissions(&secrets, std::fs::Permissions::from_mode(0o600)).expect("mode");
        let said = pollux_config::load_with_secrets(&file)
            .map_or_else(|problems| problems.to_string(), |_| String::new());
        assert_eq!(said.is_empty(), found, "{connection} with {psk}: {said}");
        assert!(
            found || said.contains("pollux.toml:6: connection.c.psk: is missing, and no secret"),
            "{said}"
        );
    }
    let _ = std::fs::remove_dir_all(&folder);
}

#[test]
fn identities_of_the_secrets_file_are_checked() {
    let key = "000102030405060708090a0b0c0d0e0f10111213";
    let file = |id: &str| {
        format!("[keys]\nto-b = \"0x{key}\"\n[psk.phones]\nids = [\"{id}\"]\nsecret = \"0x{key}0f1e2d\"\n")
    };
    assert_eq!(with_secrets("id-right", &file("email:*@phones.example"), 0o600), "");
    let said = with_secrets("id-wrong", &file("xmppaddr:a@b"), 0o600);
    assert!(
        said.contains("secrets.toml:4: psk.phones.ids: `xmppaddr:` is no type of identities; "),
        "{said}"
    );
}

#[test]
fn keys_whose_ends_cannot_be_seen_are_warned_of() {
    use std::os::unix::fs::PermissionsExt;
    let folder = std::env::temp_dir().join(format!("pollux-edges-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("folder");
    let (config, file) = (folder.join("pollux.toml"), folder.join("secrets.toml"));
    let text = "[paths]\nsecrets = \"secrets.toml\"\n[dataplane]\nwan = \"w\"\nlan = \"l\"\n";
    std::fs::write(&config, text).expect("written");
    for (psk, warned) in [
        ("sixteen letters or more", false),
        ("sixteen letters or more\\n", true),
        (" sixteen letters or more", true),
        ("sixteen letters or more\\t", true),
        ("0x000102030405060708090a0b0c0d0e0f", false),
        ("0X000102030405060708090a0b0c0d0e0f", true),
    ] {
        for secrets in [
            format!("[psk]\none = \"{psk}\"\n"),
            format!("[psk.one]\nids = [\"%any\"]\nsecret = \"{psk}\"\n"),
        ] {
            std::fs::write(&file, secrets).expect("written");
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("mode");
            let (_, loaded) = pollux_config::load_with_secrets(&config).expect("no mistake");
            let lines: Vec<String> = loaded.warnings().iter().map(ToString::to_string).collect();
            assert_eq!(lines.len(), usize::from(warned), "{psk}: {lines:?}");
            assert!(
                lines.iter().all(|line| line.contains(": psk.one") && !line.contains("letters or")),
                "{lines:?}"
            );
        }
    }
    std::fs::remove_dir_all(&folder).expect("removed");
}

#[test]
fn no_replay_window_is_warned_of_and_refused_with_esn() {
    let file = |window: &str| {
        format!(
            "[dataplane]\nwan = \"eth0\"\nlan = \"eth1\"\n[[sa]]\nname = \"from-b\"\ndirection = \"in\"\nspi = 0xc0001001\n\
             suite = \"aes128gcm16\"\nkey = \"from-b\"\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.2\"\nreqid = 1\n{window}\n\
             [[policy]]\nname = \"b\"\ndirection = \"in\"\naction = \"protect\"\nreqid = 1\nlocal_ts = \"10.1.0.0/16\"\n\
             remote_ts = \"10.2.0.0/16\"\n"
        )
    };
    let parse = |window: &str| pollux_config::parse(Path::new("w.toml"), &file(window));
    for (window, packets, warned) in [("", 1_024, 0), ("window = 32", 32, 0), ("window = 0", 0, 1)] {
        let config = parse(window).expect("no mistake");
        assert_eq!((config.sas[0].window_packets, config.warnings.len()), (packets, warned), "{window}");
    }
    let refused = parse("window = 0\nesn = true").expect_err("ESN needs one");
    assert_eq!((refused.0.len(), refused.0[0].key.as_str()), (1, "sa.from-b.window"), "{refused}");
    for window in ["window = 1", "window = 31", "window = 65537", "window = -1"] {
        assert!(
            parse(window).is_err_and(|problems| problems.to_string().contains("from 32 to 65536")),
            "{window}"
        );
    }
}

#[test]
fn files_of_another_encoding_are_told_how_to_become_utf_8() {
    let file = std::env::temp_dir().join(format!("pollux-latin1-{}.toml", std::process::id()));
    let latin1 = b"[dataplane]\n# f\xfcr das B\xfcro\nwan = \"w\"\n";
    let utf16: Vec<u8> = "\u{feff}[dataplane]\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (octets, line, fix) in
        [(&latin1[..], 2, "iconv -f LATIN1 -t UTF-8"), (&utf16, 1, "iconv -f UTF-16 -t UTF-8")]
    {
        std::fs::write(&file, octets).expect("written");
        let problems = pollux_config::load(&file).expect_err("not UTF-8");
        assert!(
            problems.0.len() == 1 && problems.0[0].line == line && problems.0[0].fix.contains(fix),
            "{problems}"
        );
    }
    std::fs::remove_file(&file).expect("removed");
}

#[test]
fn a_gateway_is_found_by_a_file_with_mistakes_elsewhere() {
    let folder = std::env::temp_dir().join(format!("pollux-places-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("pollux.toml");
    let places = |text: &str| {
        std::fs::write(&file, text).expect("a file");
        pollux_config::load_places(&file)
    };
    let broken = "[paths]\nrun_dir = \"/run/here\"\n[dataplane]\nnetns = \"gw\"\nwam = \"eth0\"\n[[sa]]\nspi = 3\n[[polcy]]\n";
    let found = places(broken).expect("all that is needed");
    assert_eq!((found.paths.run_dir.as_path(), found.netns.as_deref()), (Path::new("/run/here"), Some("gw")));
    assert!(pollux_config::load(&file).expect_err("mistakes").0.len() > 3);
    let misplaced = places("[paths]\nrun_dir = \"here\"\n").expect_err("a relative folder");
    assert!(misplaced.to_string().contains(":2: paths.run_dir: "), "{misplaced}");
    assert!(places("[paths\n").is_err(), "not even TOML");
    std::fs::remove_dir_all(&folder).expect("removed");
}

#[test]
fn a_policy_without_its_sa_is_legal_and_warned_of() {
    let text = "[dataplane]\nwan = \"w\"\nlan = \"l\"\n[[policy]]\nname = \"p\"\naction = \"protect\"\nreqid = 7\n\
        local_ts = \"10.1.0.0/16\"\nremote_ts = \"10.2.0.0/16\"\n";
    let config = pollux_config::parse(Path::new("pollux.toml"), text).expect("legal, as ip xfrm has it");
    assert_eq!(config.policies.len(), 1);
    let said: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(
        said[0].starts_with("pollux.toml:7: policy.p.reqid: no [[sa]] has direction = \"out\""),
        "{said:?}"
    );
    assert!(said[0].contains("until then this traffic is dropped"), "{said:?}");
}

#[test]
fn one_bad_sa_has_no_lines_that_follow_from_it() {
    let said = with_secrets("follow-on", "[keys]\nto-b = \"0x00\"\n", 0o600);
    assert_eq!(said.lines().count(), 1, "{said}");
    let text = "[dataplane]\nwan = \"w\"\nlan = \"l\"\n[[sa]]\nname = \"a\"\nspi = 12\n[[policy]]\nname = \"p\"\n\
        action = \"protect\"\nreqid = 7\nlocal_ts = \"10.1.0.0/16\"\nremote_ts = \"10.2.0.0/16\"\n";
    let problems = pollux_config::parse(Path::new("x"), text).expect_err("a bad SA");
    assert!(problems.0.iter().all(|problem| problem.key.starts_with("sa.a.")), "{problems}");
}

#[test]
fn files_that_nobody_may_trust_are_refused() {
    use std::os::unix::fs::PermissionsExt;
    let folder = std::env::temp_dir().join(format!("pollux-untrusted-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let (file, fifo) = (folder.join("pollux.toml"), folder.join("secrets.toml"));
    let text = "[paths]\nsecrets = \"secrets.toml\"\n[dataplane]\nwan = \"w\"\nlan = \"l\"\n";
    std::fs::write(&file, text).expect("written");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).expect("mode");
    let said = pollux_config::load(&file).expect_err("everybody's").to_string();
    assert!(said.contains("everybody may write it (mode 666)") && said.contains("chmod o-w"), "{said}");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("mode");
    // Nobody writes into it: whoever waits for that waits for ever.
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).expect("a FIFO");
    let said = pollux_config::load_with_secrets(&file).expect_err("a FIFO").to_string();
    assert!(said.contains("is no regular file (a folder, a FIFO or a device)"), "{said}");
    std::fs::remove_dir_all(&folder).expect("removed");
}
