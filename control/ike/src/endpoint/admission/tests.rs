use super::*;

fn limits() -> Limits {
    Limits { cookie_threshold: 64, half_open_max: 100, half_open_per_source: 50, ..Limits::default() }
}

fn request(source: &str, proven: bool) -> Request {
    let source = source.parse().expect("an address");
    Request { source, proven, is_peer: false, demanded: false }
}

fn stranger(source: &str, proven: bool) -> Stranger {
    let source = SocketAddr::new(source.parse().expect("an address"), 500);
    Stranger { source, spi_i: IkeSpi::ZERO, nonce: Arc::from([]), proven }
}

#[test]
fn a_source_shows_a_cookie_from_its_third_on() {
    let mut admission = Admission::default();
    for _ in 0..2 {
        assert_eq!(admission.judge(&limits(), request("192.0.2.1", false)), Admitted::Yes);
        admission.opened(&stranger("192.0.2.1", false));
    }
    assert_eq!(admission.judge(&limits(), request("192.0.2.1", false)), Admitted::WithCookie);
    assert_eq!(admission.judge(&limits(), request("192.0.2.2", false)), Admitted::Yes);
}

#[test]
fn forged_requests_do_not_count_against_the_host_whose_address_they_bear() {
    let mut admission = Admission::default();
    for _ in 0..10_000 {
        if admission.judge(&limits(), request("192.0.2.1", false)) == Admitted::Yes {
            admission.opened(&stranger("192.0.2.1", false));
        }
    }
    assert_eq!(admission.half_open(), COOKIE_FROM);
    assert_eq!(admission.judge(&limits(), request("192.0.2.1", true)), Admitted::Yes);
}

#[test]
fn forged_sources_without_number_make_bounded_state() {
    let mut admission = Admission::default();
    for n in 0..10_000u32 {
        let source = core::net::Ipv4Addr::from_bits(n).to_string();
        if admission.judge(&limits(), request(&source, false)) == Admitted::Yes {
            admission.opened(&stranger(&source, false));
        }
    }
    assert_eq!(admission.half_open(), limits().cookie_threshold);
    assert_eq!(admission.judge(&limits(), request("192.0.2.1", true)), Admitted::Yes);
}

#[test]
fn one_ipv6_host_cannot_fill_the_table_with_its_prefix() {
    let mut admission = Admission::default();
    let mut admit = |net: &str, count: u32| {
        for n in 0..count {
            let source = format!("{net}:{:x}:{n:x}", n / 7);
            if admission.judge(&limits(), request(&source, true)) == Admitted::Yes {
                admission.opened(&stranger(&source, true));
            }
        }
        admission.half_open()
    };
    assert_eq!(admit("2001:db8:0:1:", 1_000), 50, "a /64 has the share of one source");
    assert_eq!(admit("2001:db8:0:2:", 1_000), 100, "a /48 that of two");
    let mut wide = Admission::default();
    let roomy = Limits { half_open_max: 1_000, ..limits() };
    for n in 0..1_000u32 {
        let source = format!("2001:db8:0:{n:x}::1");
        if wide.judge(&roomy, request(&source, true)) == Admitted::Yes {
            wide.opened(&stranger(&source, true));
        }
    }
    assert_eq!(wide.half_open(), 100, "a /48 that of two, whatever /64 it uses");
    assert_eq!(wide.judge(&roomy, request("2001:db8:1::1", true)), Admitted::Yes);
}

#[test]
fn a_configured_peer_has_slots_when_all_others_are_taken() {
    let mut admission = Admission::default();
    for n in 0..200 {
        let source = format!("10.0.{n}.1");
        if admission.judge(&limits(), request(&source, true)) == Admitted::Yes {
            admission.opened(&stranger(&source, true));
        }
    }
    assert_eq!(admission.half_open(), 100);
    assert_eq!(admission.judge(&limits(), request("192.0.2.1", true)), Admitted::No);
    let peer = Request { is_peer: true, ..request("192.0.2.1", true) };
    for _ in 0..RESERVED_FOR_PEER {
        assert_eq!(admission.judge(&limits(), peer), Admitted::Yes);
        admission.opened(&stranger("192.0.2.1", true));
    }
    assert_eq!(admission.judge(&limits(), peer), Admitted::No);
}

#[test]
fn state_goes_with_its_cause() {
    let mut admission = Admission::default();
    let all: Vec<Stranger> = ["192.0.2.1", "192.0.2.1", "2001:db8::1", "2001:db8::2"]
        .into_iter()
        .flat_map(|source| [stranger(source, false), stranger(source, true)])
        .collect();
    for one in &all {
        admission.opened(one);
    }
    assert_eq!(admission.half_open(), 8);
    for one in &all {
        admission.closed(one);
    }
    assert_eq!((admission.half_open(), admission.sources.len()), (0, 0));
}

#[test]
fn a_request_that_needs_a_cookie_goes_on_needing_it() {
    let mut demanded = Demanded::default();
    let mark = |n: usize| {
        let mut mark = [0; 16];
        mark[..8].copy_from_slice(&n.to_be_bytes());
        mark
    };
    for n in 0..DEMANDED_MAX {
        demanded.add(mark(n));
        demanded.add(mark(n));
    }
    assert!(
        demanded.has(&mark(0)) && demanded.has(&mark(DEMANDED_MAX - 1)) && !demanded.has(&mark(DEMANDED_MAX))
    );
    demanded.add(mark(DEMANDED_MAX));
    assert!(!demanded.has(&mark(0)), "the oldest goes first");
    assert_eq!((demanded.order.len(), demanded.marks.len()), (DEMANDED_MAX, DEMANDED_MAX));
    let late = Request { demanded: true, ..request("192.0.2.1", false) };
    assert_eq!(Admission::default().judge(&limits(), late), Admitted::WithCookie);
}

#[test]
fn a_flood_is_told_once_a_second() {
    let mut admission = Admission::default();
    assert_eq!(admission.dropped(Instant::from_nanos(0)), Some(1));
    assert_eq!(admission.dropped(Instant::from_nanos(1)), None);
    assert_eq!(admission.dropped(Instant::from_nanos(2_000_000_000)), Some(2));
}
