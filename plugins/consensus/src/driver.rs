//! Drives one request. A round is a race and then the ballots that it brought, position by position.

use tightwad_plugin_sdk::{Ballot, Commit, Error, RaceDraft, Ruling, TargetFacts, TokenId};

use crate::audit_sampler::AuditSampler;
use crate::ballots::{Score, advance, starts_with};
use crate::hedge::ABSENT_LOSS;
use crate::host::Host;
use crate::paths::{self, RoundCosts};
use crate::rules::{self, Rule, RuleParams};
use crate::settings::Settings;
use crate::state::LearnedState;

/// Rounds between two looks at the audits.
const AUDIT_CHECK_ROUNDS: u32 = 8;
/// Fruitless rounds in a row after which the target decodes a stretch. A few can mean that the drafters expect the
/// answer to end here.
const MAX_FRUITLESS_ROUNDS: u32 = 2;
/// Tokens of the first stretch.
const STRETCH_TOKENS: u32 = 16;
/// Doublings of the stretch, at most.
const MAX_DOUBLINGS: u32 = 3;
/// Empty acceptances in a row after which the mode stops accepting: the request forbids it.
const MAX_EMPTY_ACCEPTANCES: u32 = 2;
/// The loss that rounds without acceptance may make, in tokens of plain decoding.
const MAX_LOSS_TOKENS: f64 = 4.0;

/// The state of one request.
pub struct Driver<'a, H> {
    host: &'a H,
    settings: Settings,
    params: RuleParams,
    target: TargetFacts,
    learned: LearnedState,
    audit_sampler: AuditSampler,
    /// The drafters that are available.
    drafters: Vec<u32>,
    /// The drafters that came to the last race.
    replied: Vec<bool>,
    /// The nanoseconds of the last race.
    race_time: u64,
    /// True until a ruling shows that the script named no policy.
    has_policy: bool,
    reported_rule: Option<Rule>,
    /// The reason to report with the next rule.
    reason: String,
    /// Acceptances in a row that committed nothing.
    empty_acceptances: u32,
    /// Tokens that were committed since the target last evaluated anything.
    unevaluated_tokens: u32,
    rounds: u32,
    /// Rounds in a row that gained nothing.
    fruitless_rounds: u32,
    /// Nanoseconds that rounds took longer than plain decoding, less the gains. At least 0.
    lost_time: f64,
}

impl<'a, H: Host> Driver<'a, H> {
    /// Reads the settings and facts of the request, and the saved state.
    #[must_use]
    pub fn new(host: &'a H) -> Self {
        let settings = Settings::from_script(&host.settings());
        let facts = host.drafters();
        let mut learned = LearnedState::new(&facts, settings.max_draft_tokens);
        learned.restore(&host.load_state());
        Self {
            host,
            settings,
            params: RuleParams::new(facts.len(), settings.quorum, settings.min_weight),
            target: host.target(),
            learned,
            audit_sampler: AuditSampler::new(host.now(), settings.audit_rate),
            drafters: (0..)
                .zip(&facts)
                .filter(|(_, facts)| !facts.unavailable)
                .map(|(index, _)| index)
                .collect(),
            replied: vec![false; facts.len()],
            race_time: 0,
            has_policy: true,
            reported_rule: None,
            reason: String::new(),
            empty_acceptances: 0,
            unevaluated_tokens: 0,
            rounds: 0,
            fruitless_rounds: 0,
            lost_time: 0.0,
        }
    }

    /// Runs rounds until generation ends.
    ///
    /// # Errors
    ///
    /// The host's errors.
    pub fn run(&mut self) -> Result<(), Error> {
        let outcome = loop {
            match self.round() {
                Ok(false) => {}
                Ok(true) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        // Another request of this mode may have ended in the meantime.
        let mut latest = self.learned.clone();
        latest.restore(&self.host.load_state());
        self.learned.strictness.merge(latest.strictness);
        self.host.save_state(&self.learned.save());
        outcome
    }

    /// Runs one round. Returns true if generation ended.
    fn round(&mut self) -> Result<bool, Error> {
        let remaining = self.host.remaining();
        if self.drafters.is_empty() {
            return self.decode(&[], remaining.max(1));
        }
        if remaining <= 1 {
            // A proposal needs room for the target's own token after it.
            return self.decode(&[], 1);
        }
        if self.rounds.is_multiple_of(AUDIT_CHECK_ROUNDS) {
            self.check_audits();
        }
        self.rounds = self.rounds.wrapping_add(1);
        let ballots = self.race(self.settings.max_draft_tokens.min(remaining))?;
        if ballots.is_empty() { self.decode_stretch(&ballots) } else { self.process(ballots) }
    }

    /// Makes the rule stricter if the audits demand it.
    fn check_audits(&mut self) {
        let base = self.base_rule();
        let (stats, min_agreement) = (self.host.audit_stats(), self.settings.min_agreement);
        if let Some(reason) = self.learned.strictness.check(base, stats, min_agreement) {
            self.reason = reason;
        }
        if self.reported_rule.is_some() {
            self.report_rule();
        }
    }

    /// The rule that applies unless audits make it stricter.
    fn base_rule(&self) -> Rule {
        // The first ruling shows whether there is a policy.
        if self.has_policy && self.reported_rule.is_some() { Rule::Plugin } else { self.settings.rule }
    }

    /// Reports the rule that applies, if it changed. Returns it.
    fn report_rule(&mut self) -> Rule {
        let base = if self.has_policy { Rule::Plugin } else { self.settings.rule };
        let rule = self.learned.strictness.apply(base);
        if self.reported_rule.replace(rule) != Some(rule) {
            self.host.report_rule(rule.name(), &std::mem::take(&mut self.reason));
        }
        rule
    }

    /// Lets all drafters propose at the same time.
    fn race(&mut self, max_tokens: u32) -> Result<Vec<Ballot>, Error> {
        let limits = self.learned.deadlines.limits(self.params.quorum);
        let start = self.host.now();
        let drafts = self.host.race(&self.drafters, max_tokens, limits)?;
        self.race_time = self.host.now().saturating_sub(start);
        self.learned.deadlines.record_race(&drafts, self.race_time);
        self.replied.fill(false);
        let mut ballots = Vec::with_capacity(drafts.len());
        for RaceDraft { drafter, draft } in drafts {
            let Some(replied) = self.replied.get_mut(drafter as usize) else { continue };
            if !std::mem::replace(replied, true) && !draft.proposals.is_empty() {
                let weight = self.learned.weights.get(drafter as usize) as f32;
                ballots.push(Ballot { drafter, weight, proposals: draft.proposals });
            }
        }
        Ok(ballots)
    }

    /// Processes the ballots until the target ran or no ballot is left. Returns true if generation ended. The loop
    /// ends: each turn takes at least one token off a ballot.
    fn process(&mut self, mut ballots: Vec<Ballot>) -> Result<bool, Error> {
        while !ballots.is_empty() {
            let tokens = match self.ruling(&ballots) {
                Ruling::Accept(tokens) if self.may_accept(&ballots, &tokens) => tokens,
                // The target verifies tokens that cannot be accepted.
                Ruling::Accept(_) => return self.verify(&ballots, Vec::new()),
                Ruling::Verify(paths) => return self.verify(&ballots, paths),
                Ruling::Decode(tokens) => return self.decode(&ballots, tokens),
            };
            let audit = self.audit_sampler.is_due();
            let accepted = self.host.accept_unverified(&tokens, audit)?;
            if accepted.finished {
                return Ok(true);
            }
            let count = (accepted.count as usize).min(tokens.len());
            self.record_acceptance(count);
            advance(&mut ballots, &tokens[..count]);
            if count < tokens.len() {
                // The request forbids the next token: the target chooses another one.
                return self.verify(&ballots, Vec::new());
            }
        }
        Ok(false)
    }

    /// The policy's ruling, or the built-in rule's.
    fn ruling(&mut self, ballots: &[Ballot]) -> Ruling {
        let drafters = self.params.drafters as u32;
        let ruled = if self.has_policy { self.host.ask_policy(ballots, drafters) } else { None };
        self.has_policy = ruled.is_some();
        let rule = self.report_rule();
        ruled.unwrap_or_else(|| rules::rule_on(rule, ballots, &self.params))
    }

    fn may_accept(&self, ballots: &[Ballot], tokens: &[TokenId]) -> bool {
        self.can_accept() && !tokens.is_empty() && ballots.iter().any(|ballot| starts_with(ballot, tokens))
    }

    /// False if audits or the request forbid acceptance.
    fn can_accept(&self) -> bool {
        self.empty_acceptances < MAX_EMPTY_ACCEPTANCES && self.reported_rule != Some(Rule::Verify)
    }

    fn record_acceptance(&mut self, tokens: usize) {
        if tokens == 0 {
            self.empty_acceptances += 1;
        } else {
            self.empty_acceptances = 0;
            self.fruitless_rounds = 0;
            self.unevaluated_tokens = self.unevaluated_tokens.saturating_add(tokens as u32);
        }
    }

    /// Lets the target verify `paths`. If there are none, it verifies the paths of the ballots that are worth their
    /// rows.
    fn verify(&mut self, ballots: &[Ballot], paths: Vec<Vec<TokenId>>) -> Result<bool, Error> {
        let mut paths = paths::limit_rows(paths);
        if paths.is_empty() {
            paths = self.merged_paths(ballots);
        }
        if paths.is_empty() {
            return self.decode_stretch(ballots);
        }
        let commit = self.host.verify(&paths)?;
        self.learn(ballots, &commit);
        if commit.finished {
            return Ok(true);
        }
        if self.can_accept() || !self.is_losing(commit.tokens.len(), commit.cost) {
            self.fruitless_rounds = 0;
            return Ok(false);
        }
        self.decode_stretch(&[])
    }

    /// The paths of the ballots that are worth verifying.
    fn merged_paths(&self, ballots: &[Ballot]) -> Vec<Vec<TokenId>> {
        let (token, row) = (self.target.time_per_token as f64, self.target.time_per_row as f64);
        let network = self.target.round_trip as f64;
        let costs = RoundCosts {
            fixed: self.race_time as f64 + network + token + f64::from(self.unevaluated_tokens) * row,
            // The comparison needs both times.
            per_row: if token > 0.0 { row } else { 0.0 },
        };
        let accuracy = |drafter: u32| self.learned.accuracies[drafter as usize].estimate();
        let max_tokens = self.host.remaining().saturating_sub(1) as usize;
        paths::merge(ballots, accuracy, costs, max_tokens)
    }

    /// True if recent races lost time. Without acceptance, a race must pay as a draft does.
    fn is_losing(&mut self, tokens: usize, nanoseconds: u64) -> bool {
        let plain = self.target.time_per_token as f64;
        let time = self.race_time as f64 + nanoseconds as f64;
        self.lost_time = (self.lost_time + time - tokens as f64 * plain).max(0.0);
        plain > 0.0 && self.lost_time > MAX_LOSS_TOKENS * plain
    }

    /// Lets the target decode without drafts after a fruitless round. The stretch grows with each such round.
    fn decode_stretch(&mut self, ballots: &[Ballot]) -> Result<bool, Error> {
        self.fruitless_rounds = self.fruitless_rounds.saturating_add(1);
        let doublings = self.fruitless_rounds.saturating_sub(MAX_FRUITLESS_ROUNDS + 1).min(MAX_DOUBLINGS);
        let stretch =
            if self.fruitless_rounds > MAX_FRUITLESS_ROUNDS { STRETCH_TOKENS << doublings } else { 1 };
        self.decode(ballots, stretch)
    }

    /// Decodes without drafts. The committed tokens score the ballots.
    fn decode(&mut self, ballots: &[Ballot], tokens: u32) -> Result<bool, Error> {
        let commit = if tokens <= 1 { self.host.verify(&[])? } else { self.host.decode(tokens)? };
        self.learn(ballots, &commit);
        Ok(commit.finished)
    }

    /// Compares the ballots with the target's own tokens.
    fn learn(&mut self, ballots: &[Ballot], commit: &Commit) {
        self.unevaluated_tokens = 0;
        // A drafter that replied but has no ballot left disagreed with an accepted token, or proposed nothing.
        let mut losses: Vec<Option<f64>> =
            self.replied.iter().map(|replied| if *replied { None } else { Some(ABSENT_LOSS) }).collect();
        let mut compared = false;
        for ballot in ballots {
            let (score, drafter) = (Score::of(ballot, &commit.tokens), ballot.drafter as usize);
            losses[drafter] = score.loss();
            compared |= score.loss().is_some();
            self.learned.accuracies[drafter].learn(score);
        }
        if compared {
            self.learned.weights.learn(&losses);
        }
    }
}
