//! The built-in rules: pure functions of the ballots for one place in the output.

use tightwad_plugin_sdk::{Ballot, Ruling, TokenId};

use crate::ballots::{agreeing, says};

/// Sums of weights that differ by less are equal: a weight is a rounded number.
const ROUNDING: f64 = 1e-6;

/// Who or what rules.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rule {
    /// What all ballots agree on is accepted.
    #[default]
    Strict,
    /// What more than half of all drafters say is accepted.
    Majority,
    /// Ballots that agree to the end of the shortest are accepted; else everything is verified.
    AnyDisagree,
    /// What drafters with enough weight say is accepted.
    Hedge,
    /// The policy plugin that the script named.
    Plugin,
    /// Nothing is accepted.
    Verify,
}

impl Rule {
    /// As settings, reports and metrics call it.
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

    /// The rule that a script can choose by this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let rules = [Self::Strict, Self::Majority, Self::AnyDisagree, Self::Hedge];
        rules.into_iter().find(|rule| rule.name() == name)
    }
}

/// What a rule goes by, besides the ballots.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// Drafters that the script named.
    pub drafters: usize,
    /// Ballots that `strict` and `any_disagree` need.
    pub quorum: usize,
    /// Share of all weight that `hedge` needs.
    pub threshold: f64,
}

impl Terms {
    /// With `quorum` answers, or more than half of the drafters. One ballot alone is no consensus, unless
    /// there is only one drafter.
    #[must_use]
    pub fn new(drafters: usize, quorum: Option<u32>, threshold: f64) -> Self {
        let quorum = quorum.map_or(drafters / 2 + 1, |quorum| quorum as usize);
        Self { drafters, quorum: quorum.max(2).min(drafters), threshold }
    }
}

/// Rules on `ballots`. What is not accepted is verified.
#[must_use]
pub fn rule(rule: Rule, ballots: &[Ballot], terms: &Terms) -> Ruling {
    let accepted = match rule {
        Rule::Strict => strict(ballots, terms),
        Rule::Majority => majority(ballots, terms),
        Rule::AnyDisagree => any_disagree(ballots, terms),
        Rule::Hedge => hedge(ballots, terms),
        Rule::Plugin | Rule::Verify => Vec::new(),
    };
    if accepted.is_empty() { Ruling::Verify(Vec::new()) } else { Ruling::Accept(accepted) }
}

fn strict(ballots: &[Ballot], terms: &Terms) -> Vec<TokenId> {
    if ballots.len() < terms.quorum {
        return Vec::new();
    }
    let Some((first, others)) = ballots.split_first() else { return Vec::new() };
    let mut common = first.tokens();
    for other in others {
        common.truncate(agreeing(other, &common));
    }
    common
}

fn any_disagree(ballots: &[Ballot], terms: &Terms) -> Vec<TokenId> {
    let shortest = ballots.iter().map(|ballot| ballot.proposals.len()).min();
    let common = strict(ballots, terms);
    if Some(common.len()) == shortest { common } else { Vec::new() }
}

fn majority(ballots: &[Ballot], terms: &Terms) -> Vec<TokenId> {
    let drafters = terms.drafters as f64;
    carried(ballots, |_| 1.0, |votes| 2.0 * votes > drafters)
}

/// A ballot's weight is its share of that of all drafters, those that did not come included.
fn hedge(ballots: &[Ballot], terms: &Terms) -> Vec<TokenId> {
    if ballots.len() < terms.drafters.min(2) {
        return Vec::new();
    }
    let least = terms.threshold - ROUNDING;
    // Two tokens at one place never have more than half each: there is no tie to break.
    carried(ballots, |ballot| f64::from(ballot.weight), |sum| sum >= least && sum > 0.5 + ROUNDING)
}

/// Goes from place to place while one token has supporters whose values add up to `enough`; whoever says
/// something else has no say in what follows. No two tokens of one place may have enough.
fn carried(ballots: &[Ballot], value: impl Fn(&Ballot) -> f64, enough: impl Fn(f64) -> bool) -> Vec<TokenId> {
    let mut standing: Vec<&Ballot> = ballots.iter().collect();
    let mut tokens = Vec::new();
    loop {
        let at = tokens.len();
        let support = |token: &TokenId| {
            let supporters = standing.iter().filter(|ballot| says(ballot, at) == Some(*token));
            supporters.map(|ballot| value(ballot)).sum::<f64>()
        };
        let said = standing.iter().filter_map(|ballot| says(ballot, at));
        let Some(token) = said.into_iter().find(|token| enough(support(token))) else { return tokens };
        tokens.push(token);
        standing.retain(|ballot| says(ballot, at) == Some(token));
    }
}
