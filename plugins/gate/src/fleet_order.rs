//! The order in which members of the fleet are asked to write.

use tightwad_plugin_sdk::Member;

/// Returns the indices of the fleet, the member that is asked first in front.
///
/// Idle members come before busy ones. Within each group, members are ordered by expected time over approval rate;
/// equal ones keep the script's order.
#[must_use]
pub fn order(fleet: &[Member]) -> Vec<u32> {
    let mut times: Vec<u64> =
        fleet.iter().map(|member| member.time_per_token).filter(|time| *time > 0).collect();
    times.sort_unstable();
    let fastest = times.first().copied().unwrap_or(1);
    let median = times.get(times.len() / 2).copied().unwrap_or(1);
    let rank = |(index, member): (u32, &Member)| {
        let time = match (member.time_per_token, member.written) {
            // Only an answer can show its speed.
            (0, 0) => fastest,
            // It wrote and its speed is still unknown: its backend does not report it.
            (0, _) => median,
            (time, _) => time,
        };
        (member.pending_requests > 0, cost(member, time), index)
    };
    let mut ranks: Vec<(bool, f64, u32)> = (0..).zip(fleet).map(rank).collect();
    ranks.sort_by(|one, other| one.0.cmp(&other.0).then(one.1.total_cmp(&other.1)));
    ranks.into_iter().map(|(_, _, index)| index).collect()
}

/// The cost of an answer, in arbitrary units.
fn cost(member: &Member, time: u64) -> f64 {
    let waiting = f64::from(member.pending_requests) + 1.0;
    // Squared: a rejected answer also costs an answer of the reviewer, which is slower than any member.
    waiting * time as f64 / approval_rate(member).powi(2)
}

/// The share of approved answers, as if a first answer had been approved. So a new member gets a chance, and no share
/// is 0.
fn approval_rate(member: &Member) -> f64 {
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
    fn fastest_member_comes_first_and_equals_keep_their_order() {
        let fleet = [member(0, 30, 0, 0), member(0, 10, 0, 0), member(0, 30, 0, 0), member(0, 20, 0, 0)];
        assert_eq!(order(&fleet), [1, 3, 0, 2]);
        assert_eq!(order(&[member(0, 0, 0, 0), member(0, 0, 0, 0)]), [0, 1]);
        assert!(order(&[]).is_empty());
    }

    #[test]
    fn more_often_approved_member_comes_first_of_equally_fast_ones() {
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
    fn unknown_member_gets_one_chance() {
        let known = member(0, 10, 10, 9);
        assert_eq!(order(&[known.clone(), member(0, 0, 0, 0)]), [1, 0], "never asked");
        assert_eq!(order(&[known.clone(), member(0, 10, 0, 0)]), [1, 0], "as fast, and never asked");
        assert_eq!(order(&[known.clone(), member(0, 0, 1, 0)]), [0, 1], "was rejected");
        let slow = member(0, 50, 10, 9);
        assert_eq!(
            order(&[known, slow, member(0, 0, 10, 9)]),
            [0, 1, 2],
            "unknown speed counts as the median, not as the fastest"
        );
    }

    #[test]
    fn shorter_queue_comes_first_of_busy_members() {
        assert_eq!(order(&[member(5, 10, 0, 0), member(1, 20, 0, 0)]), [1, 0]);
    }

    #[test]
    fn meaningless_counters_do_no_harm() {
        let odd = member(u32::MAX, u64::MAX, 1, u32::MAX);
        assert_eq!(order(&[odd, member(0, 1, u32::MAX, u32::MAX)]), [1, 0]);
        assert_eq!(order(&[member(0, 10, 1, 100), member(0, 10, 9, 9)]), [0, 1], "at most all were approved");
    }
}
