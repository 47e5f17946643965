use std::io::{Seek, SeekFrom};
use std::path::Path;

use super::*;
use pollux_config::api::SaRow;

fn config(connections: &[(&str, &[&str])], more: &str) -> Config {
    let child = |child: &&str| {
        let (name, rest) = child.split_once(' ').unwrap_or((child, ""));
        format!(
            "[connection.children.{name}]\nlocal_ts = \"10.1.0.0/16\"\nremote_ts = \"10.2.0.0/16\"\n{rest}\n"
        )
    };
    let connection = |(name, children): &(&str, &[&str])| {
        let children: String = children.iter().map(child).collect();
        format!("[[connection]]\nname = \"{name}\"\n{children}")
    };
    let connections: String = connections.iter().map(connection).collect();
    let text = format!("[dataplane]\nwan = \"w\"\nlan = \"l\"\n{more}{connections}");
    pollux_config::parse(Path::new("test.toml"), &text).expect("right")
}

fn numbers(numbers: &Numbers) -> Vec<(String, u32)> {
    numbers.iter().map(|((connection, child), reqid)| (format!("{connection}/{child}"), reqid.0)).collect()
}

fn is(children: &Numbers, expected: &[(&str, u32)]) {
    let expected: Vec<_> = expected.iter().map(|&(name, reqid)| (name.to_owned(), reqid)).collect();
    assert_eq!(numbers(children), expected);
}

/// Outbound SAs: name and reqid.
fn table(sas: &[(Option<&str>, u32)]) -> Table {
    let entry = |&(name, reqid): &(Option<&str>, u32)| {
        let name = name.map(str::to_owned);
        SaEntry { row: SaRow { name, reqid, ..SaRow::default() }, state: State::Installed }
    };
    sas.iter().enumerate().map(|(at, sa)| (SaId(at as u64), entry(sa))).collect()
}

fn file() -> File {
    let path = std::env::temp_dir().join(format!(
        "pollux-reqids-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    let mut options = File::options();
    let file = options.create(true).read(true).append(true).open(&path).expect("a file");
    std::fs::remove_file(path).expect("there");
    file
}

/// As a new process reads it.
fn again(file: &File, config: &Config) -> Reqids {
    let mut file = file.try_clone().expect("a descriptor");
    file.seek(SeekFrom::Start(0)).expect("a file");
    Reqids::load(file, config)
}

#[test]
fn numbers_count_from_one_and_pass_over_those_of_the_file() {
    let manual = "[[policy]]\nname = \"p\"\naction = \"protect\"\nreqid = 2\nlocal_ts = \"10.3.0.0/16\"\nremote_ts = \"10.4.0.0/16\"\n";
    let config = config(&[("b", &["x", "y reqid = 3"]), ("a", &["z"])], manual);
    is(&Reqids::default().of(&config, &Table::new()), &[("a/z", 4), ("b/x", 1), ("b/y", 3)]);
}

#[test]
fn a_child_keeps_its_number_whatever_comes_and_goes_and_whoever_restarts() {
    let file = file();
    let first = config(&[("b", &["x", "y"]), ("a", &["z"])], "");
    let mut reqids = again(&file, &first);
    is(reqids.children(), &[("a/z", 3), ("b/x", 1), ("b/y", 2)]);
    reqids.keep(&Table::new()).expect("room");
    // Others come before it, one goes, the order changes.
    let second = config(&[("0", &["new"]), ("a", &["z", "other"]), ("b", &["y"])], "");
    let installed = table(&[(Some("b/x"), 1), (Some("b/y"), 2)]);
    let expected = [("0/new", 4), ("a/other", 5), ("a/z", 3), ("b/y", 2)];
    is(&reqids.of(&second, &installed), &expected);
    // The same where control was dead meanwhile.
    is(again(&file, &second).children(), &expected);
    reqids.adopt(reqids.of(&second, &installed));
    assert_eq!(reqids.strangers(&second, &installed), []);
    reqids.keep(&installed).expect("room");
    // The one that went is known while its SA is there, and comes back to its number.
    let reqids = again(&file, &first);
    is(reqids.children(), &[("a/z", 3), ("b/x", 1), ("b/y", 2)]);
    assert_eq!(reqids.names().get(&Reqid(4)).map(String::as_str), Some("0/new"));
    // Once the SA is gone its number is free.
    let mut reqids = again(&file, &second);
    reqids.keep(&table(&[(Some("b/y"), 2)])).expect("room");
    is(again(&file, &config(&[("c", &["n"])], "")).children(), &[("c/n", 1)]);
}

#[test]
fn a_number_that_the_file_gives_to_another_moves_its_child_and_ends_its_sas() {
    let before = config(&[("b", &["x", "y"])], "");
    let mut reqids = Reqids { children: Reqids::default().of(&before, &Table::new()), ..Reqids::default() };
    reqids.keep(&Table::new()).expect("no file");
    let after = config(&[("b", &["x", "y", "z reqid = 1"])], "");
    let installed = table(&[(Some("b/x"), 1), (Some("b/y"), 2), (None, 1_000_001)]);
    reqids.adopt(reqids.of(&after, &installed));
    is(reqids.children(), &[("b/x", 3), ("b/y", 2), ("b/z", 1)]);
    assert_eq!(reqids.strangers(&after, &installed), [SaId(0)]);
    // The same with manual SAs, and where two children swap.
    let manual = "[[policy]]\nname = \"p\"\naction = \"protect\"\nreqid = 2\nlocal_ts = \"10.3.0.0/16\"\nremote_ts = \"10.4.0.0/16\"\n";
    let after = config(&[("b", &["x", "y"])], manual);
    reqids.adopt(reqids.of(&after, &installed));
    assert_eq!(reqids.strangers(&after, &installed), [SaId(1)]);
    let after = config(&[("b", &["x reqid = 2", "y reqid = 1"])], "");
    reqids.adopt(reqids.of(&after, &installed));
    let mut strangers = reqids.strangers(&after, &installed);
    strangers.sort_unstable();
    assert_eq!(strangers, [SaId(0), SaId(1)]);
}

#[test]
fn without_the_table_no_sa_of_an_earlier_life_is_taken_for_a_childs() {
    for text in ["", "[{\"connection\":\"b\"", "[{\"connection\":\"b\",\"child\":\"x\",\"reqid\":0}]"] {
        let mut file = file();
        file.write_all(text.as_bytes()).expect("room");
        let config = config(&[("b", &["x"])], "");
        let mut reqids = again(&file, &config);
        let installed = table(&[(None, 1), (None, 9)]);
        assert_eq!(reqids.strangers(&config, &installed), [SaId(0)], "{text}");
        reqids.keep(&installed).expect("room");
        assert_eq!(again(&file, &config).names().len(), 1, "the damaged one is replaced");
    }
}
