//! Where keys are in the memory of both processes, and where they are no more.

use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pollux_lab::gateway::{Config, Gateway};
use pollux_lab::ike::{Connection, NAME, SECRET};
use pollux_lab::skip_unless;
use pollux_lab::tunnel::{Tunnel, configs};
use pollux_lab::wait::{sleep, wait_for};
use pollux_lab::world::{Family, Side, World};

/// Where each of `patterns` is in what a process has mapped.
fn places(pid: u32, patterns: &[&[u8]]) -> Result<Vec<Vec<String>>> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let mut places = vec![Vec::new(); patterns.len()];
    let begins: [bool; 256] =
        std::array::from_fn(|octet| patterns.iter().any(|pattern| usize::from(pattern[0]) == octet));
    for line in maps.lines().filter(|line| !line.contains("[vvar") && !line.contains("[vsyscall]")) {
        let mut words = line.split_ascii_whitespace();
        let (range, rights) = (words.next().context("a range")?, words.next().context("rights")?);
        if !rights.starts_with('r') {
            continue;
        }
        let (first, last) = range.split_once('-').context("a range")?;
        let [first, last] = [first, last].map(|text| u64::from_str_radix(text, 16));
        let first = first?;
        let mut octets = vec![0; usize::try_from(last? - first)?];
        // What is mapped beyond the end of a file, or of a device, cannot be read.
        if memory.read_exact_at(&mut octets, first).is_err() {
            continue;
        }
        for at in (0..octets.len()).filter(|&at| begins[usize::from(octets[at])]) {
            for (places, _) in
                places.iter_mut().zip(patterns).filter(|(_, pattern)| octets[at..].starts_with(pattern))
            {
                let around = &octets[at.saturating_sub(32)..(at + 48).min(octets.len())];
                places.push(format!("{line} +{at:#x}: {around:02x?}"));
            }
        }
    }
    Ok(places)
}

fn octets(hex: &str) -> Result<Vec<u8>> {
    let digits = hex.trim_start_matches("0x").as_bytes();
    digits.chunks(2).map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?)).collect()
}

/// Key material of all ESP SAs that a gateway has logged.
fn logged(file: &std::path::Path) -> Result<Vec<Vec<u8>>> {
    let text = std::fs::read_to_string(file)?;
    let lines = text.lines().filter(|line| line.starts_with("esp_sa"));
    lines.map(|line| octets(line.split('"').nth(11).context("the key")?)).collect()
}

fn pids(gateway: &Gateway) -> Result<[u32; 2]> {
    let status = gateway.status()?;
    let pid =
        |who: &str| -> Result<u32> { Ok(u32::try_from(status[who]["pid"].as_u64().context("a pid")?)?) };
    Ok([pid("control")?, pid("dataplane")?])
}

/// Nothing of `keys` is in control; in the data plane each is once, as the first round key.
fn check(gateway: &Gateway, keys: &[Vec<u8>]) -> Result<()> {
    let [control, dataplane] = pids(gateway)?;
    // All but what the salt is added to, and without the salt: 96 bits that are nowhere by chance.
    let patterns: Vec<&[u8]> = keys.iter().map(|key| &key[4..16]).collect();
    let found = places(control, &patterns)?;
    ensure!(found.iter().all(Vec::is_empty), "control has keys: {found:#?}");
    let found = places(dataplane, &patterns)?;
    ensure!(
        found.iter().all(|places| places.len() <= 1),
        "the data plane has more than its tables: {found:#?}"
    );
    Ok(())
}

fn ping(world: &World) -> Result<()> {
    let target = Side::B.host(Family::V4);
    wait_for("a ping", Duration::from_secs(10), || {
        Ok(world.caller.sh(&format!("ping -c1 -W1 {target}")).is_ok())
    })
}

#[test]
fn negotiated_keys_are_in_the_tables_of_the_data_plane_and_nowhere_else() -> Result<()> {
    skip_unless!("ip", "ping");
    let world = World::new("kmn")?;
    let connection = Connection::new("aes128gcm16-prfsha256-x25519", "aes128gcm16-x25519");
    let key_log = world.folder().join("keys.log");
    let mut theirs = connection.pollux(Side::B, "none");
    theirs.set_control("key_log", &format!("\"{}\"", key_log.display()));
    let _b = Gateway::start(&world, Side::B, &theirs)?;
    let a = Gateway::start(&world, Side::A, &connection.pollux(Side::A, "none"))?;
    a.cli(&format!("initiate --child {NAME}"))?;
    ping(&world)?;
    let [control, dataplane] = pids(&a)?;
    // What has to be there is found.
    ensure!(!places(control, &[SECRET.as_bytes()])?[0].is_empty(), "the search does not work");
    let first = logged(&key_log)?;
    ensure!(first.len() == 2, "{}", first.len());
    let tables = places(dataplane, &[&first[0][4..16], &first[1][4..16]])?;
    // The portable cipher keeps its round keys in another order.
    if a.status()?["dataplane"]["aead"] != "portable" {
        ensure!(tables.iter().all(|places| places.len() == 1), "not once in the tables: {tables:#?}");
    }
    check(&a, &first)?;
    // Keys of either role of a rekey, and after what changes an SA.
    for _ in 0..3 {
        a.cli(&format!("rekey --child {NAME}"))?;
        sleep(Duration::from_millis(500))?;
    }
    ping(&world)?;
    let all = logged(&key_log)?;
    ensure!(all.len() == 8, "{}", all.len());
    check(&a, &all)?;
    let mut marked = connection.clone();
    marked.our_child = "dscp = \"ef\"\n".to_owned();
    a.configure(&marked.pollux(Side::A, "none"))?;
    a.reload()?;
    ping(&world)?;
    check(&a, &logged(&key_log)?)
}

#[test]
fn manual_keys_are_read_when_they_are_needed_and_not_kept() -> Result<()> {
    skip_unless!("ip", "ping");
    let world = World::new("kmm")?;
    let tunnel = Tunnel::new(1, Family::V4, Family::V4)?;
    let [config_a, config_b] = configs(std::slice::from_ref(&tunnel));
    let _b = Gateway::start(&world, Side::B, &config_b)?;
    let mut a = Gateway::start(&world, Side::A, &config_a)?;
    ping(&world)?;
    let lines = config_a.secrets.lines().filter_map(|line| line.split_once('=').map(|(_, value)| value));
    let keys: Vec<Vec<u8>> =
        lines.map(|value| octets(value.trim().trim_matches('"'))).collect::<Result<_>>()?;
    ensure!(keys.len() == 2, "{}", keys.len());
    let no_text = |a: &Gateway| -> Result<()> {
        let written: Vec<String> = keys.iter().map(|key| hex(key)).collect();
        let patterns: Vec<&[u8]> = written.iter().map(String::as_bytes).collect();
        let found = places(pids(a)?[0], &patterns)?;
        ensure!(found.iter().all(Vec::is_empty), "control has the file's text: {found:#?}");
        Ok(())
    };
    check(&a, &keys)?;
    no_text(&a)?;
    a.reload()?;
    check(&a, &keys)?;
    no_text(&a)?;
    // A data plane that comes back gets them from the file.
    a.kill_dataplane()?;
    a.start_dataplane()?;
    a.wait_installed()?;
    ping(&world)?;
    check(&a, &keys)?;
    no_text(&a)?;
    // Others than those of the configuration in force are not taken without a reload.
    let other = Tunnel::new(1, Family::V4, Family::V4)?;
    let [changed, _] = configs(std::slice::from_ref(&other));
    a.configure(&Config { tables: config_a.tables.clone(), ..changed })?;
    a.kill_dataplane()?;
    a.start_dataplane()?;
    wait_for("the refusal", Duration::from_secs(10), || {
        Ok(a.cli("log")?.contains("is another than when the file was read; `pollux reload` takes it over"))
    })?;
    ensure!(a.status()?["dataplane"]["sas_outbound"] == 0, "{}", a.status()?);
    a.configure(&config_a)?;
    a.reload()?;
    a.wait_installed()?;
    ping(&world)?;
    check(&a, &keys)
}

fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::new(), |mut text, octet| {
        let _ = write!(text, "{octet:02x}");
        text
    })
}
