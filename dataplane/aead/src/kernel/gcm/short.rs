//! Packets of few vectors: all vectors of a packet in registers at once.
//!
//! A short packet is one long chain of instructions that wait for each other; cores look ahead far enough for one such
//! chain and a half, so chains that have nothing to do with each other must lie side by side in the program. Packets
//! therefore go through a pipeline: a turn of it has AES of one packet, GHASH of the one before, and the tag of the one
//! before that. Where there are registers for it, AES takes two turns.

use std::marker::PhantomData;

use super::rounds::key_stream;
use super::turn::{Aes, Common, Hashed, Hashing, Held, Turn, halves};
use super::{Ahead, Around, Jobs, Packet, hash_input, load, reversed, start, states, store};
use crate::burst::BURST;
use crate::kernel::isa::{Isa, Task};
use crate::key::Tables;
use crate::packet::PacketClass;

/// Packets of `R` vectors each.
pub(crate) struct Short<'j, 'k, P: Packet<'k>, const ROUNDS: usize, const R: usize> {
    jobs: &'j mut [P],
    outs: &'j mut [P::Out],
    class: Jobs,
    /// A number for each job, which tells lengths apart where all keys are of one kind.
    lengths: &'j [u8; BURST],
    many_keys: bool,
    many_kinds: bool,
    keys: PhantomData<&'k Tables>,
}

impl<'j, 'k, P: Packet<'k>, const ROUNDS: usize, const R: usize> Short<'j, 'k, P, ROUNDS, R> {
    /// Of these jobs those in `class`.
    #[inline(always)]
    pub(crate) fn new(
        jobs: &'j mut [P],
        outs: &'j mut [P::Out],
        class: Jobs,
        lengths: &'j [u8; BURST],
        (many_keys, many_kinds): (bool, bool),
    ) -> Self {
        Self { jobs, outs, class, lengths, many_keys, many_kinds, keys: PhantomData }
    }
}

impl<'k, P: Packet<'k>, const ROUNDS: usize, const R: usize> Task for Short<'_, 'k, P, ROUNDS, R> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let mut ahead = Ahead::new::<P, ROUNDS>(self.jobs, &self.class, self.many_keys);
        while let Some(first) = self.class.first() {
            let form = self.jobs[first].form();
            let mut same = self.class.split_off(isa.equal(self.lengths, self.lengths[first]));
            if self.many_kinds {
                for index in same.clone() {
                    if !self.jobs[index].is_of(&form) {
                        same.remove(index);
                        self.class.put(index);
                    }
                }
            }
            // Where there are registers for the key, one that all packets have is read but once.
            if const { P::ESP && I::REGISTERS > 16 } && !self.many_keys {
                self.run_same::<I, true>(isa, form, same, &mut ahead);
            } else {
                self.run_same::<I, false>(isa, form, same, &mut ahead);
            }
        }
    }
}

impl<'k, P: Packet<'k>, const ROUNDS: usize, const R: usize> Short<'_, 'k, P, ROUNDS, R> {
    /// Jobs of this form; `ONE_KEY` says that all have the same.
    #[inline(always)]
    fn run_same<I: Isa, const ONE_KEY: bool>(
        &mut self,
        isa: I,
        form: PacketClass,
        same: Jobs,
        ahead: &mut Ahead,
    ) {
        if const { P::ESP } && form.is_sent() {
            self.run_form::<I, true, ONE_KEY>(isa, form, same, ahead);
        } else {
            self.run_form::<I, false, ONE_KEY>(isa, form, same, ahead);
        }
    }

    /// [`Self::run_same`], where `SENT` is [`PacketClass::is_sent`]. All that follows from form and key is found before the
    /// loop, whose every instruction counts.
    #[inline(always)]
    fn run_form<I: Isa, const SENT: bool, const ONE_KEY: bool>(
        &mut self,
        isa: I,
        form: PacketClass,
        places: Jobs,
        ahead: &mut Ahead,
    ) {
        let Some(first) = places.first() else { return };
        let (sent, lengths) = if SENT {
            let around = Around::sent(form);
            (Some(around), around.lengths(isa))
        } else {
            (None, Around::new(&self.jobs[first].item(form)).lengths(isa))
        };
        let key = ONE_KEY.then(|| Held::new::<ROUNDS>(isa, self.jobs[first].tables()));
        let common = Common { form, frame: isa.frame(form, R), sent, lengths, key };
        if const { halves::<I>() } {
            self.pipeline_in_halves(isa, &common, places, ahead);
        } else {
            self.pipeline(isa, &common, places, ahead);
        }
    }

    /// A turn has all rounds of AES.
    #[inline(always)]
    fn pipeline<I: Isa>(&mut self, isa: I, common: &Common<'k, I, R>, places: Jobs, ahead: &mut Ahead) {
        let mut hashing = Hashing::nothing(isa);
        let mut hashed = hashing.hashed();
        for place in places {
            ahead.step::<P, ROUNDS>(self.jobs);
            let mut aes = self.begin(isa, place, common);
            let next = self.turn(isa, common, None, &mut aes, &mut hashing);
            self.finish(isa, common, &hashed);
            hashed = hashing.hashed();
            hashing = next;
        }
        self.finish(isa, common, &hashed);
        self.finish(isa, common, &hashing.rest(isa, common));
    }

    /// A turn has half of the rounds, of two packets.
    #[inline(always)]
    fn pipeline_in_halves<I: Isa>(
        &mut self,
        isa: I,
        common: &Common<'k, I, R>,
        mut places: Jobs,
        ahead: &mut Ahead,
    ) {
        let Some(first) = places.next() else { return };
        ahead.step::<P, ROUNDS>(self.jobs);
        let mut late = self.begin(isa, first, common);
        late.first_half(isa, common);
        let mut hashing = Hashing::nothing(isa);
        let mut hashed = hashing.hashed();
        for place in places {
            ahead.step::<P, ROUNDS>(self.jobs);
            let mut early = self.begin(isa, place, common);
            let next = self.turn(isa, common, Some(&mut early), &mut late, &mut hashing);
            self.finish(isa, common, &hashed);
            hashed = hashing.hashed();
            hashing = next;
            late = early;
        }
        let last = self.turn(isa, common, None, &mut late, &mut hashing);
        self.finish(isa, common, &hashed);
        self.finish(isa, common, &hashing.hashed());
        self.finish(isa, common, &last.rest(isa, common));
    }

    /// Reads what AES starts from.
    #[inline(always)]
    fn begin<I: Isa>(&mut self, isa: I, place: usize, common: &Common<'k, I, R>) -> Aes<'k, I, ROUNDS, R> {
        let packet = &mut self.jobs[place];
        let tables = packet.tables();
        let (beside, packet) = if let Some(sent) = common.sent {
            (sent.beside, packet.packet())
        } else {
            let item = packet.item(common.form);
            (item.beside, item.packet)
        };
        let window = isa.window(packet, &common.frame);
        let key = common.round_key(isa, tables, 0);
        Aes { place, tables, states: states(isa, &window, start(isa, &window, beside, key), 0) }
    }

    /// One turn of the pipeline: `late` comes out of AES, with `early`, if any, in the first half of its rounds, and
    /// `hashing` beside them.
    #[inline(always)]
    fn turn<I: Isa>(
        &mut self,
        isa: I,
        common: &Common<'k, I, R>,
        early: Option<&mut Aes<'k, I, ROUNDS, R>>,
        late: &mut Aes<'k, I, ROUNDS, R>,
        hashing: &mut Hashing<'k, I, R>,
    ) -> Hashing<'k, I, R> {
        let packet = &mut self.jobs[late.place];
        let (around, packet) = if let Some(sent) = common.sent {
            (sent, packet.packet())
        } else {
            let item = packet.item(common.form);
            (Around::new(&item), item.packet)
        };
        let mut window = isa.window(packet, &common.frame);
        let data = load::<I, true, true, R>(isa, &window, around, common.lengths, 0);
        let mut turn = Turn { common, early, late, hashing };
        turn.step(isa, 1);
        turn.step(isa, 2);
        turn.step(isa, 3);
        turn.step(isa, 4);
        turn.step(isa, 5);
        if const { halves::<I>() } {
            if const { ROUNDS > 10 } {
                turn.step(isa, 6);
            }
            if const { ROUNDS > 12 } {
                turn.step(isa, 7);
            }
        } else {
            turn.step(isa, 6);
            turn.step(isa, 7);
            turn.step(isa, 8);
            turn.step(isa, 9);
            if const { ROUNDS > 10 } {
                turn.step(isa, 10);
                turn.step(isa, 11);
            }
            if const { ROUNDS > 12 } {
                turn.step(isa, 12);
                turn.step(isa, 13);
            }
        }
        let key = common.round_key(isa, late.tables, ROUNDS);
        let (out, stream) = key_stream::<I, true, R>(isa, late.states, key, &data);
        store::<I, true, true, R>(isa, &mut window, 0, &out);
        let blocks = if P::SEALS {
            hash_input::<I, true, true, R>(isa, &window, &out, &data)
        } else {
            reversed(isa, &data)
        };
        Hashing::new(isa, late.place, &late.tables.powers, blocks, stream)
    }

    /// Gives a packet its tag, or compares that.
    #[inline(always)]
    fn finish<I: Isa>(&mut self, isa: I, common: &Common<'k, I, R>, done: &Hashed<I>) {
        let Hashed { place, lanes, stream } = done;
        // At first nothing has gone through the pipeline yet.
        if let (Some(job), Some(out)) = (self.jobs.get_mut(*place), self.outs.get_mut(*place)) {
            let mut window = isa.window(job.packet(), &common.frame);
            let tag = isa.tag_beside(&common.frame, lanes, stream);
            let received = if P::SEALS { isa.lane(isa.zero(), 0) } else { isa.icv(&window) };
            *out = P::finish(isa, &mut window, tag, received);
            if P::refused(*out) {
                isa.wipe(&mut window);
            }
        }
    }
}
