//! 20,000 manual SAs and 10,000 policies: all of it is installed, and a reload of one change changes one.
//!
//! The times are printed and not judged: machines differ.

use std::fmt::Write as _;
use std::time::Instant;

use anyhow::{Result, ensure};
use pollux_lab::gateway::{Config, Gateway};
use pollux_lab::skip_unless;
use pollux_lab::world::{Side, World};

const POLICIES: u32 = 10_000;

/// One policy for each of so many pairs of networks, with an SA each way.
fn config(first_key: u8) -> Config {
    let mut config = Config::default();
    config.secrets.push_str("[keys]\n");
    let mut tables = String::new();
    for n in 0..POLICIES {
        let (high, low) = (n / 256, n % 256);
        let _ = write!(
            tables,
            "[[policy]]\nname = \"p-{n}\"\naction = \"protect\"\nreqid = {}\nlocal_ts = \"10.{high}.{low}.0/24\"\n\
             remote_ts = \"11.{high}.{low}.0/24\"\n",
            n + 1
        );
        for (at, direction) in ["out", "in"].into_iter().enumerate() {
            let name = format!("sa-{n}-{direction}");
            let spi = 0x1_0000 + 2 * n + u32::from(at == 1);
            let octet = if n == 0 { first_key } else { 0 };
            let _ = writeln!(config.secrets, "{name} = \"{octet:02x}{spi:08x}{}\"", "5a".repeat(15));
            let _ = write!(
                tables,
                "[[sa]]\nname = \"{name}\"\ndirection = \"{direction}\"\nspi = {spi}\nlocal = \"{}\"\nremote = \"{}\"\n\
                 suite = \"aes128gcm16\"\nkey = \"{name}\"\nreqid = {}\n",
                Side::A.outer(pollux_lab::world::Family::V4),
                Side::B.outer(pollux_lab::world::Family::V4),
                n + 1
            );
        }
    }
    config.table(&tables);
    config
}

#[test]
fn twenty_thousand_sas_and_ten_thousand_policies_are_all_installed() -> Result<()> {
    skip_unless!("ip");
    let world = World::new("big")?;
    let mut a = Gateway::start(&world, Side::A, &Config::default())?;
    a.down()?;
    a.configure(&config(1))?;
    let timed = |what: &str, arguments: &str| -> Result<String> {
        let began = Instant::now();
        let text = a.cli(arguments)?;
        println!("{what}: {:.2} s", began.elapsed().as_secs_f64());
        Ok(text)
    };
    timed("check", "check")?;
    let up = timed("up", "up")?;
    ensure!(up.contains("20000 of 20000 installed; 20000 of 20000 policies in force"), "{up}");
    let again = timed("reload without a change", "reload")?;
    ensure!(again.contains("SAs untouched: 20000") && again.contains("policies: as they were"), "{again}");
    a.configure(&config(2))?;
    let began = Instant::now();
    let reload = a.reload()?;
    println!("reload of one change: {:.2} s", began.elapsed().as_secs_f64());
    ensure!(reload.contains("SAs untouched: 19998"), "{reload}");
    let status = a.status()?;
    ensure!(status["dataplane"]["sas_inbound"] == POLICIES, "{status}");
    a.down().map(drop)
}
