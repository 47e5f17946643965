//! What a peer may get wrong once its messages are protected: each refusal's notify, read from the wire by an initiator
//! that derives its own keys, and by tshark with ours; and what a rekey may lose.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pollux_lab::capture::Capture;
use pollux_lab::gateway::Gateway;
use pollux_lab::ike::Connection;
use pollux_lab::oracle::ike::{Answer, Step, talk};
use pollux_lab::oracle::tshark::{self, Keys};
use pollux_lab::skip_unless;
use pollux_lab::wait::wait_for;
use pollux_lab::world::{Family, Side, World};

const IKE: &str = "aes128gcm16-prfsha256-x25519";
const ESP: &str = "aes128gcm16-noesn";

const UNSUPPORTED_CRITICAL_PAYLOAD: u64 = 1;
const INVALID_SYNTAX: u64 = 7;
const NO_PROPOSAL_CHOSEN: u64 = 14;
const INVALID_KE_PAYLOAD: u64 = 17;
const NO_ADDITIONAL_SAS: u64 = 35;
const TS_UNACCEPTABLE: u64 = 38;
const TEMPORARY_FAILURE: u64 = 43;
const CHILD_SA_NOT_FOUND: u64 = 44;
const COOKIE: u64 = 16_390;

/// SA: what an answer has that agrees.
const SA: u64 = 33;

/// A step, the notify that has to answer it (type, SPI and data), and a word of our log's line about it.
struct Refusal {
    step: Step,
    notify: (u64, &'static str, &'static str),
    line: &'static str,
}

fn refusals() -> Vec<Refusal> {
    let refusal = |step, notify, line| Refusal { step, notify, line };
    let child = || Step::new("child");
    let critical = (UNSUPPORTED_CRITICAL_PAYLOAD, "", "c8");
    vec![
        refusal(Step::new("inform").with("critical", true), critical, "unknown critical payload of type 200"),
        refusal(child().with("critical", true), critical, "unknown critical payload of type 200"),
        refusal(
            child().with("bits", 256),
            (NO_PROPOSAL_CHOSEN, "", ""),
            "connection.media.children.media.esp_proposals",
        ),
        refusal(
            child().with("remote_ts", "172.16.0.0/12"),
            (TS_UNACCEPTABLE, "", ""),
            "connection.media.children.*.remote_ts",
        ),
        refusal(
            child().with("rekeys", "c0ffee00"),
            (CHILD_SA_NOT_FOUND, "c0ffee00", ""),
            "a Child SA with SPI 0xc0ffee00",
        ),
        refusal(
            Step::new("rekey_ike"),
            (INVALID_KE_PAYLOAD, "", "001f"),
            "we want group 31; connection.media.proposals",
        ),
    ]
}

fn gateway(world: &World) -> Result<(Gateway, std::path::PathBuf)> {
    let key_log = world.folder().join("keys.log");
    let mut config = Connection::new(IKE, ESP).pollux(Side::A, "none");
    config
        .set_control("key_log", &format!("\"{}\"", key_log.display()))
        .set_control("cookie_threshold", "0")
        .set_control("overlap", "\"0s\"");
    Ok((Gateway::start(world, Side::A, &config)?, key_log))
}

fn has(answer: &Answer, notify: (u64, &str, &str)) -> bool {
    answer.notifies.iter().any(|(kind, spi, data)| (*kind, spi.as_str(), data.as_str()) == notify)
}

#[test]
fn every_refusal_inside_sk_has_its_notify_on_the_wire_and_costs_its_own_exchange_alone() -> Result<()> {
    skip_unless!("ip", "tcpdump", "tshark");
    let world = World::new("prt")?;
    let (a, key_log) = gateway(&world)?;
    let capture = Capture::start(&world.internet, "a0", world.folder(), "wire")?;
    let said = |answer: &Answer| format!("{answer:?}\n{}", a.logs());

    // IKE_AUTH with a critical payload that nobody knows makes no IKE SA.
    let answers = talk(&world, &[Step::new("init"), Step::new("auth").with("critical", true)])?;
    ensure!(answers[0].notifies.iter().any(|(kind, ..)| *kind == COOKIE), "no cookie: {}", said(&answers[0]));
    ensure!(has(&answers[1], (UNSUPPORTED_CRITICAL_PAYLOAD, "", "c8")), "{}", said(&answers[1]));
    ensure!(a.status()?["control"]["ike_sas"] == 0, "an IKE SA: {}", a.cli("list-sas")?);

    // On an IKE SA that works, each costs its own exchange: after all of them it still makes Child SAs.
    let cases = refusals();
    let mut steps = vec![Step::new("init"), Step::new("auth")];
    steps.extend(cases.iter().map(|case| case.step.clone()));
    steps.extend([Step::new("inform"), Step::new("child"), Step::new("inform").with("broken", true)]);
    let answers = talk(&world, &steps)?;
    ensure!(answers[1].payloads.contains(&SA), "no Child SA: {}", said(&answers[1]));
    let log = a.cli("log")?;
    for (case, answer) in cases.iter().zip(&answers[2..]) {
        ensure!(has(answer, case.notify), "{:?} is answered by {}", case.step, said(answer));
        ensure!(log.lines().any(|line| line.contains(case.line)), "no line has `{}`:\n{log}", case.line);
    }
    let [alive, child, broken] = &answers[2 + cases.len()..] else { anyhow::bail!("{answers:?}") };
    ensure!(alive.payloads.is_empty() && !alive.silence, "it does not live: {}", said(alive));
    ensure!(child.payloads.contains(&SA), "no further Child SA: {}", said(child));
    // Bad syntax ends it (RFC 7296 §2.21.3), here and in the data plane.
    ensure!(has(broken, (INVALID_SYNTAX, "", "")), "{}", said(broken));
    wait_for("the IKE SA to be gone", Duration::from_secs(5), || {
        let status = a.status()?;
        Ok(status["control"]["ike_sas"] == 0 && status["dataplane"]["sas_inbound"] == 0)
    })?;

    let nonce = Step::new("child").with("without", 40);
    let answers = talk(&world, &[Step::new("init"), Step::new("auth"), nonce])?;
    ensure!(has(&answers[2], (INVALID_SYNTAX, "", "")), "{}", said(&answers[2]));
    let log = a.cli("log")?;
    ensure!(log.contains("payload Nonce is missing"), "{log}");
    wait_for("that IKE SA to be gone too", Duration::from_secs(5), || {
        Ok(a.status()?["control"]["ike_sas"] == 0)
    })?;

    // tshark, with the keys that we log, reads the same.
    let file = capture.file().to_owned();
    capture.stop()?;
    let filter = format!("isakmp.exchangetype > 34 && ip.src == {}", Side::A.outer(Family::V4));
    let rows = tshark::fields(&file, &Keys::of_log(&key_log)?, &[], &filter, &["isakmp.notify.msgtype"])?;
    let seen: Vec<&str> = rows.iter().flatten().flat_map(|types| types.split(',')).collect();
    for (kind, ..) in cases.iter().map(|case| case.notify) {
        ensure!(seen.contains(&kind.to_string().as_str()), "tshark sees no {kind} among {seen:?}");
    }
    Ok(())
}

#[test]
fn a_data_plane_that_is_silent_or_an_ike_sa_that_is_full_is_said_and_leaves_no_trace() -> Result<()> {
    skip_unless!("ip");
    let world = World::new("prs")?;
    let (a, _) = gateway(&world)?;
    let signal = |name: &str| -> Result<Step> {
        Ok(Step::new("signal").with("pid", a.dataplane_pid()?).with("name", name))
    };
    // 64 Child SAs are the most that one IKE SA may have.
    let mut steps = vec![Step::new("init"), Step::new("auth"), signal("SIGSTOP")?, Step::new("child")];
    steps.extend([signal("SIGCONT")?, Step::new("inform")]);
    steps.extend(vec![Step::new("child"); 64]);
    let answers = talk(&world, &steps)?;
    let story = || format!("{answers:?}\n{}", a.logs());
    let silent = &answers[3];
    ensure!(has(silent, (TEMPORARY_FAILURE, "", "")), "{}", story());
    ensure!((450..1_500).contains(&silent.ms), "the deadline is 500 ms: {}", story());
    let (last, others) = answers[6..].split_last().context("no answer")?;
    ensure!(others.iter().all(|answer| answer.payloads.contains(&SA)), "{}", story());
    ensure!(has(last, (NO_ADDITIONAL_SAS, "", "")), "{}", story());
    let sas = a.json("list-sas")?;
    let children = sas[0]["children"].as_array().map(Vec::len);
    ensure!(sas.as_array().map(Vec::len) == Some(1) && children == Some(64), "{sas}\n{}", story());
    wait_for("the data plane to hold these and no more", Duration::from_secs(5), || {
        let status = a.status()?;
        Ok(status["dataplane"]["sas_inbound"] == 64)
    })
    .with_context(story)?;
    a.check_ledger()
}

#[test]
fn what_comes_under_a_replaced_spi_too_late_is_counted_as_lost_to_the_rekey() -> Result<()> {
    skip_unless!("ip");
    let world = World::new("prl")?;
    let (a, _) = gateway(&world)?;
    let mut steps = vec![Step::new("init"), Step::new("auth"), Step::new("child").with("rekeys", "last")];
    steps.extend([Step::new("inform").with("delete", "old"), Step::new("inform")]);
    let lost = || -> Result<Option<u64>> { Ok(a.status()?["control"]["lost_to_rekey"].as_u64()) };
    ensure!(lost()? == Some(0));
    steps.extend(vec![Step::new("esp"); 3]);
    let answers = talk(&world, &steps)?;
    ensure!(answers[2].payloads.contains(&SA), "no rekey: {answers:?}\n{}", a.logs());
    wait_for("three lost packets", Duration::from_secs(10), || Ok(lost()? == Some(3)))
        .with_context(|| format!("{:?}\n{}", a.status(), a.logs()))?;
    let status = a.status()?;
    ensure!(status["control"]["child_rekeys"] == 1, "{status}");
    Ok(())
}
