//! Two endpoints that talk to each other over a perfect network and a data plane that never hesitates.

mod pair;

use pair::{Pair, config};

use crate::event::Event;

#[test]
fn both_ends_reach_one_child_sa_with_mirrored_spis() {
    let mut pair = Pair::new(config("a"), config("b"));
    pair.initiate(0);
    pair.run(5_000);
    let [a, b] = [0, 1].map(|end| pair.children(end));
    assert_eq!((a.len(), b.len()), (1, 1), "{:#?}", pair.events);
    assert_eq!((a[0].spi_in, a[0].spi_out), (b[0].spi_out, b[0].spi_in));
    assert_eq!(a[0].local_ts, b[0].remote_ts);
    assert!(pair.keys_match(), "what one end seals the other opens");
    assert!(pair.events.iter().any(|(end, event)| *end == 0 && matches!(event, Event::ChildUp(_))));
}
