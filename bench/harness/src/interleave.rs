//! Contenders taking turns.

/// Runs every contender once a round, for so many rounds, and returns each one's figures in the order of rounds.
///
/// The starting contender moves on each round, so that none always follows the same neighbour's caches. One round
/// before the first is not counted.
pub fn interleave<C>(
    contenders: &mut [C],
    rounds: usize,
    mut slice: impl FnMut(&mut C) -> f64,
) -> Vec<Vec<f64>> {
    let count = contenders.len();
    let mut figures = vec![Vec::with_capacity(rounds); count];
    for contender in contenders.iter_mut() {
        slice(contender);
    }
    for round in 0..rounds {
        for turn in 0..count {
            let who = (turn + round) % count;
            figures[who].push(slice(&mut contenders[who]));
        }
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_contender_runs_once_a_round_and_once_before() {
        let mut contenders = [0, 0, 0];
        let figures = interleave(&mut contenders, 4, |runs| {
            *runs += 1;
            f64::from(*runs)
        });
        assert_eq!(contenders, [5, 5, 5]);
        assert_eq!(figures, vec![vec![2.0, 3.0, 4.0, 5.0]; 3]);
    }
}
