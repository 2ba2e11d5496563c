//! The built-in rules: pure functions of the ballots for one position of the output.

use tightwad_plugin_sdk::{Ballot, Ruling, TokenId};

use crate::ballots::{common_prefix, token_at};

/// Sums of weights with a smaller difference count as equal: weights are rounded numbers.
const ROUNDING: f64 = 1e-6;

/// A rule, or the policy in its place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rule {
    /// Accepts the tokens on which all ballots agree.
    #[default]
    Strict,
    /// Accepts the tokens that more than half of all drafters propose.
    Majority,
    /// Accepts ballots that agree to the end of the shortest one; otherwise everything is verified.
    AnyDisagree,
    /// Accepts the tokens whose drafters have enough weight together.
    Hedge,
    /// The policy plugin that the script named.
    Plugin,
    /// Accepts nothing.
    Verify,
}

impl Rule {
    /// The name in settings, reports and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Majority => "majority",
            Self::AnyDisagree => "any_disagree",
            Self::Hedge => "hedge",
            Self::Plugin => "plugin",
            Self::Verify => "verify",
        }
    }

    /// The rule of this name, if a script can choose it.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let rules = [Self::Strict, Self::Majority, Self::AnyDisagree, Self::Hedge];
        rules.into_iter().find(|rule| rule.name() == name)
    }
}

/// The parameters of the rules.
#[derive(Debug, Clone, Copy)]
pub struct RuleParams {
    /// The number of the script's drafters.
    pub drafters: usize,
    /// Ballots that `strict` and `any_disagree` need.
    pub quorum: usize,
    /// The share of all weight that `hedge` needs.
    pub min_weight: f64,
}

impl RuleParams {
    /// Creates the parameters. The default quorum is more than half of the drafters. It is at least two ballots,
    /// unless there is only one drafter.
    #[must_use]
    pub fn new(drafters: usize, quorum: Option<u32>, min_weight: f64) -> Self {
        let quorum = quorum.map_or(drafters / 2 + 1, |quorum| quorum as usize);
        Self { drafters, quorum: quorum.max(2).min(drafters), min_weight }
    }
}

/// Rules on `ballots`: accepts tokens, or lets the target verify every ballot.
#[must_use]
pub fn rule_on(rule: Rule, ballots: &[Ballot], params: &RuleParams) -> Ruling {
    let accepted = match rule {
        Rule::Strict => strict(ballots, params),
        Rule::Majority => majority(ballots, params),
        Rule::AnyDisagree => any_disagree(ballots, params),
        Rule::Hedge => hedge(ballots, params),
        Rule::Plugin | Rule::Verify => Vec::new(),
    };
    if accepted.is_empty() { Ruling::Verify(Vec::new()) } else { Ruling::Accept(accepted) }
}

fn strict(ballots: &[Ballot], params: &RuleParams) -> Vec<TokenId> {
    if ballots.len() < params.quorum {
        return Vec::new();
    }
    let Some((first, others)) = ballots.split_first() else { return Vec::new() };
    let mut common = first.tokens();
    for other in others {
        common.truncate(common_prefix(other, &common));
    }
    common
}

fn any_disagree(ballots: &[Ballot], params: &RuleParams) -> Vec<TokenId> {
    let shortest = ballots.iter().map(|ballot| ballot.proposals.len()).min();
    let common = strict(ballots, params);
    if Some(common.len()) == shortest { common } else { Vec::new() }
}

fn majority(ballots: &[Ballot], params: &RuleParams) -> Vec<TokenId> {
    let drafters = params.drafters as f64;
    accept_while(ballots, |_| 1.0, |votes| 2.0 * votes > drafters)
}

/// A ballot's weight is a share of the weight of all drafters, absent ones included.
fn hedge(ballots: &[Ballot], params: &RuleParams) -> Vec<TokenId> {
    if ballots.len() < params.drafters.min(2) {
        return Vec::new();
    }
    let min_weight = params.min_weight - ROUNDING;
    // Of two tokens at one position, at most one has more than half: there are no ties.
    accept_while(ballots, |ballot| f64::from(ballot.weight), |sum| sum >= min_weight && sum > 0.5 + ROUNDING)
}

/// Accepts tokens, position by position, while the values of one token's supporters add up to `enough`. Ballots that
/// disagree do not count at later positions. At most one token of a position may have enough.
fn accept_while(
    ballots: &[Ballot],
    value: impl Fn(&Ballot) -> f64,
    enough: impl Fn(f64) -> bool,
) -> Vec<TokenId> {
    let mut remaining: Vec<&Ballot> = ballots.iter().collect();
    let mut tokens = Vec::new();
    loop {
        let at = tokens.len();
        let support = |token: &TokenId| {
            let supporters = remaining.iter().filter(|ballot| token_at(ballot, at) == Some(*token));
            supporters.map(|ballot| value(ballot)).sum::<f64>()
        };
        let proposed = remaining.iter().filter_map(|ballot| token_at(ballot, at));
        let Some(token) = proposed.into_iter().find(|token| enough(support(token))) else { return tokens };
        tokens.push(token);
        remaining.retain(|ballot| token_at(ballot, at) == Some(token));
    }
}
