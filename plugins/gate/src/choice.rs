//! Who writes: an order of the fleet.

use tightwad_plugin_sdk::Member;

/// Places of the fleet, the one that is asked first in front.
///
/// Idle members come first. Of the idle ones, and of the busy ones, it is expected time against the share
/// approved so far; who is alike stays in the script's order.
#[must_use]
pub fn order(fleet: &[Member]) -> Vec<u32> {
    let mut times: Vec<u64> =
        fleet.iter().map(|member| member.time_per_token).filter(|time| *time > 0).collect();
    times.sort_unstable();
    let fastest = times.first().copied().unwrap_or(1);
    let usual = times.get(times.len() / 2).copied().unwrap_or(1);
    let rank = |(place, member): (u32, &Member)| {
        let time = match (member.time_per_token, member.written) {
            // Only an answer can show how fast it is.
            (0, 0) => fastest,
            // It wrote, and still nobody knows: a backend that does not say.
            (0, _) => usual,
            (time, _) => time,
        };
        (member.pending_requests > 0, cost(member, time), place)
    };
    let mut ranks: Vec<(bool, f64, u32)> = (0..).zip(fleet).map(rank).collect();
    ranks.sort_by(|one, other| one.0.cmp(&other.0).then(one.1.total_cmp(&other.1)));
    ranks.into_iter().map(|(_, _, place)| place).collect()
}

/// What an answer costs, in units that only compare.
fn cost(member: &Member, time: u64) -> f64 {
    let waiting = f64::from(member.pending_requests) + 1.0;
    // Squared, as a rejected answer also costs one of the reviewer's, who is slower than any of the fleet.
    waiting * time as f64 / approved(member).powi(2)
}

/// The share of answers approved, as if the first had been: who is new gets a chance, and nobody has none.
fn approved(member: &Member) -> f64 {
    let approved = member.approved.min(member.written);
    (f64::from(approved) + 1.0) / (f64::from(member.written) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(pending_requests: u32, time_per_token: u64, written: u32, approved: u32) -> Member {
        Member { name: String::new(), pending_requests, time_per_token, written, approved }
    }

    #[test]
    fn idle_members_come_first_whatever_they_cost() {
        let fleet = [member(1, 10, 9, 9), member(0, 9000, 9, 0), member(0, 20, 9, 9)];
        assert_eq!(order(&fleet), [2, 1, 0]);
    }

    #[test]
    fn the_fastest_comes_first_and_equals_stay_in_order() {
        let fleet = [member(0, 30, 0, 0), member(0, 10, 0, 0), member(0, 30, 0, 0), member(0, 20, 0, 0)];
        assert_eq!(order(&fleet), [1, 3, 0, 2]);
        assert_eq!(order(&[member(0, 0, 0, 0), member(0, 0, 0, 0)]), [0, 1]);
        assert!(order(&[]).is_empty());
    }

    #[test]
    fn of_two_as_fast_the_one_approved_more_often_comes_first() {
        assert_eq!(order(&[member(0, 10, 10, 3), member(0, 10, 10, 8)]), [1, 0]);
    }

    #[test]
    fn speed_does_not_make_up_for_many_rejections() {
        let (hasty, careful) = (member(0, 10, 100, 30), member(0, 30, 100, 80));
        assert_eq!(order(&[hasty, careful.clone()]), [1, 0]);
        let (good, slow) = (member(0, 10, 100, 70), careful);
        assert_eq!(order(&[slow, good]), [1, 0]);
    }

    #[test]
    fn who_is_unknown_gets_a_chance_and_does_not_keep_it() {
        let known = member(0, 10, 10, 9);
        assert_eq!(order(&[known.clone(), member(0, 0, 0, 0)]), [1, 0], "never asked");
        assert_eq!(order(&[known.clone(), member(0, 10, 0, 0)]), [1, 0], "as fast, and never asked");
        assert_eq!(order(&[known.clone(), member(0, 0, 1, 0)]), [0, 1], "was rejected");
        let slow = member(0, 50, 10, 9);
        assert_eq!(
            order(&[known, slow, member(0, 0, 10, 9)]),
            [0, 1, 2],
            "as the usual one, not the fastest"
        );
    }

    #[test]
    fn of_busy_members_the_shorter_queue_counts() {
        assert_eq!(order(&[member(5, 10, 0, 0), member(1, 20, 0, 0)]), [1, 0]);
    }

    #[test]
    fn counters_that_make_no_sense_do_no_harm() {
        let odd = member(u32::MAX, u64::MAX, 1, u32::MAX);
        assert_eq!(order(&[odd, member(0, 1, u32::MAX, u32::MAX)]), [1, 0]);
        assert_eq!(order(&[member(0, 10, 1, 100), member(0, 10, 9, 9)]), [0, 1], "not more than all");
    }
}
