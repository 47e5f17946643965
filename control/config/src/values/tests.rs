use super::*;
use proptest::prelude::*;

fn parsed<T>(parse: impl Fn(&DeValue<'_>) -> Result<T, Wrong>, toml: &str) -> Result<T, Wrong> {
    parse(DeValue::parse(toml).expect("TOML").get_ref())
}

#[test]
fn durations_have_units() {
    for (written, millis) in
        [("30", 30_000), ("\"200ms\"", 200), ("\"4h\"", 14_400_000), ("\"1d\"", 86_400_000)]
    {
        assert_eq!(parsed(duration, written), Ok(Duration::from_millis(millis)));
    }
    for written in ["\"4 weeks\"", "\"\"", "1.5", "-3", "\"99999999999999999d\""] {
        assert!(parsed(duration, written).is_err(), "{written}");
    }
}

#[test]
fn counts_have_decimal_units() {
    assert_eq!(parsed(count, "\"10G\""), Ok(10_000_000_000));
    assert_eq!(parsed(count, "1_000"), Ok(1_000));
    assert!(parsed(count, "\"10 apples\"").is_err());
}

#[test]
fn selectors_read_as_swanctl_writes_them() {
    for (written, shown) in [
        ("10.1.0.0/16", "10.1.0.0/16"),
        ("10.1.2.3", "10.1.2.3/32"),
        ("2001:db8::/32[udp/5060]", "2001:db8::/32[17/5060]"),
        ("0.0.0.0/0[tcp]", "0.0.0.0/0[6]"),
        ("10.0.0.1-10.0.0.9[udp/16384-32767]", "10.0.0.1-10.0.0.9[17/16384-32767]"),
        ("10.0.0.0/8[any]", "10.0.0.0/8"),
    ] {
        assert_eq!(parse_selector(written).map(|found| found.to_string()), Ok(shown.to_owned()));
    }
    for written in [
        "10.1.2.3/16",
        "10.0.0.0/33",
        "10.0.0.0/255.0.0.0",
        "10.0.0.0/8[udp/",
        "10.0.0.0/8[/5060]",
        "10.0.0.9-10.0.0.1",
    ] {
        assert!(parse_selector(written).is_err(), "{written}");
    }
}

#[test]
fn selectors_of_multicast_groups_are_refused() {
    for written in ["239.1.0.0/16", "224.0.0.0/4", "ff05::/16", "239.1.2.3-239.1.2.9"] {
        let wrong = parsed(selector, &format!("{written:?}")).expect_err(written);
        assert!(wrong.reason.contains("multicast"), "{written}: {}", wrong.reason);
    }
    for written in ["0.0.0.0/0", "192.0.0.0/2", "223.255.255.0/24", "::/0"] {
        assert!(parsed(selector, &format!("{written:?}")).is_ok(), "{written}");
    }
}

#[test]
fn spis_may_be_hexadecimal_text_or_numbers() {
    assert_eq!(parsed(spi, "0xc0ffee01").map(Spi::get), Ok(0xc0ff_ee01));
    assert_eq!(parsed(spi, "\"0x1000\"").map(Spi::get), Ok(0x1000));
    assert_eq!(parsed(spi, "4096").map(Spi::get), Ok(4096));
    for written in ["255", "0x1_0000_0000", "\"beef\"", "true"] {
        assert!(parsed(spi, written).is_err(), "{written}");
    }
}

#[test]
fn dscp_is_a_class_a_number_or_copied() {
    assert_eq!(parsed(dscp, "\"copy\""), Ok(DscpMark::Copy));
    assert_eq!(parsed(dscp, "\"EF\""), Ok(DscpMark::Fixed(Dscp::EF)));
    assert_eq!(parsed(dscp, "46"), Ok(DscpMark::Fixed(Dscp::EF)));
    assert!(parsed(dscp, "64").is_err());
}

#[test]
fn near_misses_are_recognised_and_far_ones_are_not() {
    let known = ["local_ts", "remote_ts", "suite", "window"];
    assert_eq!(closest("local-ts", &known), Some("local_ts"));
    assert_eq!(closest("lcoal_ts", &known), Some("local_ts"));
    assert_eq!(closest("sutie", &known), Some("suite"));
    assert_eq!(closest("banana", &known), None);
}

proptest! {
    #[test]
    fn no_text_makes_a_parser_panic(written in "\\PC{0,40}") {
        let _ = parse_selector(&written);
        let _ = hex(&written);
        let value = DeValue::String(written.into());
        let _ = (duration(&value), count(&value), spi(&value).is_ok(), dscp(&value), prefix(&value).is_ok());
    }
}

#[test]
fn a_bad_level_of_the_log_is_a_mistake_of_the_file() {
    for good in ["info", "WARN", "off", "info,pollux_control::udp=debug", "pollux_control=trace"] {
        assert_eq!(parsed(log_filter, &format!("{good:?}")), Ok(good.to_owned()));
    }
    for bad in
        ["", "verbose", "info,", "3", "a b=info", "pollux_control=", "=info", "x::=debug", "info;debug"]
    {
        assert!(parsed(log_filter, &format!("{bad:?}")).is_err(), "{bad}");
    }
    let wrong = parsed(log_filter, "\"inof\"").expect_err("a misprint");
    assert!(wrong.reason.contains("`inof`") && wrong.fix.starts_with("did you mean `info`?"), "{wrong:?}");
    assert!(parsed(log_filter, "7").is_err(), "a number");
}
