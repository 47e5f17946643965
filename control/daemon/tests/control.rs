//! Control against a data plane without packets: the rings, the diff, re-attachment, refusals.

mod support;

use support::{Control, Fake, wait};

fn pair() -> Vec<(String, &'static str, u32, u32)> {
    vec![("to-b".to_owned(), "out", 0x1000, 1), ("from-b".to_owned(), "in", 0x1001, 2)]
}

#[test]
fn ten_thousand_sas_are_installed_and_found_again_by_the_next_control() {
    let mut control = Control::folder("many");
    let sas: Vec<_> = (0..10_000_u32)
        .map(|n| (format!("sa{n}"), if n % 2 == 0 { "out" } else { "in" }, 0x1000 + n, n + 1))
        .collect();
    control.configure(&sas, "");
    let fake = Fake::start(&control.folder);
    control.start();
    control.installed(&fake, sas.len());
    {
        let recorded = fake.recorded();
        assert_eq!((recorded.sas.len(), recorded.policies.len(), recorded.commits), (10_000, 2, 1));
        let count = |word: &str| recorded.at_workers.iter().filter(|at| *at == word).count();
        assert_eq!((count("add"), count("route")), (10_000, 10_000));
    }
    // A second life finds all of it, and does nothing.
    control.stop();
    control.start();
    control.installed(&fake, sas.len());
    let recorded = fake.recorded();
    assert_eq!((recorded.adds, recorded.commits), (10_000, 1));
}

#[test]
fn reload_touches_what_changed_and_nothing_else() {
    let mut control = Control::folder("reload");
    let mut sas = pair();
    sas.push(("old".to_owned(), "in", 0x1002, 3));
    control.configure(&sas, "");
    let fake = Fake::start(&control.folder);
    control.start();
    control.installed(&fake, 3);
    sas[0].3 = 7; // another key
    sas[2] = ("new".to_owned(), "in", 0x1003, 4);
    control.configure(&sas, "");
    let report = control.ask(r#"{"op":"reload"}"#).expect("an answer");
    let report = &report["ok"];
    assert_eq!(report["sas_added"], serde_json::json!(["new"]));
    assert_eq!(report["sas_replaced"], serde_json::json!(["to-b"]));
    assert_eq!(report["sas_removed"], serde_json::json!(["old"]));
    assert_eq!((&report["sas_untouched"], &report["policies_changed"]), (&1.into(), &false.into()));
    wait("the old SA to go", || fake.recorded().sas.len() == 3);
    let recorded = fake.recorded();
    assert_eq!(recorded.adds, 4);
    assert!(recorded.at_workers.iter().any(|word| word == "replace"));
}

#[test]
fn a_broken_file_changes_nothing() {
    let mut control = Control::folder("broken");
    control.configure(&pair(), "");
    let fake = Fake::start(&control.folder);
    control.start();
    control.installed(&fake, 2);
    control.configure(&[], "polcy = 3\n");
    let answer = control.ask(r#"{"op":"reload"}"#).expect("an answer");
    let error = answer["error"].as_str().expect("an error");
    assert!(error.starts_with("nothing was changed:") && error.contains("polcy"), "{error}");
    assert_eq!(fake.recorded().sas.len(), 2);
}

#[test]
fn a_data_plane_that_comes_back_empty_gets_everything_again() {
    let mut control = Control::folder("back");
    control.configure(&pair(), "");
    let fake = Fake::start(&control.folder);
    control.start();
    control.installed(&fake, 2);
    drop(fake);
    wait("control to see it go", || {
        control.ask(r#"{"op":"status"}"#).is_some_and(|status| status["ok"]["attached"] == false)
    });
    let fake = Fake::start(&control.folder);
    control.installed(&fake, 2);
    let recorded = fake.recorded();
    assert_eq!((recorded.sas.len(), recorded.policies.len()), (2, 2));
}

#[test]
fn a_refused_sa_is_one_line_and_leaves_nothing_behind() {
    let mut control = Control::folder("refused");
    control.configure(&pair(), "");
    let fake = Fake::start(&control.folder);
    fake.recorded().refuse.push(0x1001);
    control.start();
    control.installed(&fake, 1);
    // The two answers come in either order.
    let line = serde_json::json!(["sa from-b: the data plane refused: the table is full"]);
    wait("control to tell of the refusal", || {
        control.ask(r#"{"op":"status"}"#).is_some_and(|status| status["ok"]["refused"] == line)
    });
    assert_eq!(fake.recorded().sas.len(), 1);
}

#[test]
fn a_second_control_is_refused() {
    let mut control = Control::folder("second");
    control.configure(&pair(), "");
    let fake = Fake::start(&control.folder);
    control.start();
    control.installed(&fake, 2);
    let (config, secrets) =
        pollux_config::load_with_secrets(&control.folder.join("pollux.toml")).expect("a right configuration");
    let refused = pollux_control::run(config, secrets).expect_err("one is enough");
    assert!(refused.to_string().contains("another pollux-control answers here"), "{refused}");
    assert_eq!(fake.recorded().sas.len(), 2);
}

#[test]
fn an_sa_that_is_not_acknowledged_in_time_is_taken_back() {
    let mut control = Control::folder("silent");
    control.configure(&pair(), "");
    let fake = Fake::start(&control.folder);
    fake.recorded().silent.push(0x1001);
    control.start();
    wait("the SA to be given up", || {
        let status = control.ask(r#"{"op":"status"}"#).unwrap_or_default();
        status["ok"]["refused"]
            == serde_json::json!(["sa from-b: the data plane did not acknowledge within 10s"])
    });
    wait("what was done to be taken back", || fake.recorded().sas.len() == 1);
    assert!(fake.recorded().at_workers.iter().any(|word| word == "delete"));
}
