//! Counts the tokens of a request's choices, also of choices that do not finish.

use std::sync::Arc;

use tightwad_core::{Request, Usage, UsageMeter};

/// The tokens of one choice.
struct ChoiceUsage {
    meter: Arc<UsageMeter>,
    event_count: u32,
    finished: Option<Usage>,
}

impl ChoiceUsage {
    /// The tokens so far. Some backends, such as text servers, count tokens only at the end. Each of their events has at
    /// least one token.
    fn usage(&self) -> Usage {
        self.finished.unwrap_or_else(|| {
            let usage = self.meter.usage();
            Usage { completion_tokens: usage.completion_tokens.max(self.event_count), ..usage }
        })
    }
}

/// The token counts of a request.
#[derive(Default)]
pub(crate) struct TokenCount {
    choices: Vec<ChoiceUsage>,
    choices_per_prompt: usize,
}

impl TokenCount {
    /// Counts the tokens of the choices `requests`. `choices_per_prompt` of them in a row have the same prompt.
    pub(crate) fn new(requests: &[Request], choices_per_prompt: usize) -> Self {
        let choice =
            |request: &Request| ChoiceUsage { meter: request.meter.clone(), event_count: 0, finished: None };
        Self { choices: requests.iter().map(choice).collect(), choices_per_prompt }
    }

    /// Counts an event of a choice.
    pub(crate) fn count_event(&mut self, choice: usize) {
        if let Some(choice) = self.choices.get_mut(choice) {
            choice.event_count += 1;
        }
    }

    /// Records the tokens of a finished choice.
    pub(crate) fn finish_choice(&mut self, choice: usize, usage: Usage) {
        if let Some(choice) = self.choices.get_mut(choice) {
            choice.finished = Some(usage);
        }
    }

    /// The tokens of the choices that have not finished.
    pub(crate) fn unfinished(&self) -> impl Iterator<Item = Usage> {
        self.choices.iter().filter(|choice| choice.finished.is_none()).map(ChoiceUsage::usage)
    }

    /// The tokens that a key pays for. Choices with the same prompt pay for it once, as in OpenAI's `usage`.
    pub(crate) fn charged_tokens(&self) -> u64 {
        let of_prompt = |choices: &[ChoiceUsage]| {
            let usages = choices.iter().map(ChoiceUsage::usage);
            let (prompt, completion) = usages.fold((0, 0), |(prompt, completion), usage| {
                (usage.prompt_tokens.max(prompt), completion + u64::from(usage.completion_tokens))
            });
            u64::from(prompt) + completion
        };
        self.choices.chunks(self.choices_per_prompt.max(1)).map(of_prompt).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(choices: usize, choices_per_prompt: usize) -> (TokenCount, Vec<Request>) {
        let requests: Vec<Request> = (0..choices).map(|_| Request::default()).collect();
        (TokenCount::new(&requests, choices_per_prompt), requests)
    }

    fn usage(prompt_tokens: u32, completion_tokens: u32) -> Usage {
        Usage { prompt_tokens, completion_tokens, cached_tokens: 0 }
    }

    #[test]
    fn choices_of_one_prompt_pay_for_it_once() {
        let (mut count, _requests) = count(4, 2);
        for (choice, usage) in
            [usage(10, 1), usage(10, 2), usage(20, 3), usage(20, 4)].into_iter().enumerate()
        {
            count.finish_choice(choice, usage);
        }
        assert_eq!(count.charged_tokens(), 10 + 20 + 1 + 2 + 3 + 4);
    }

    #[test]
    fn unfinished_choice_pays_for_tokens_so_far() {
        let (mut count, requests) = count(2, 2);
        count.finish_choice(0, usage(10, 5));
        requests[1].meter.add_prompt(10);
        for _ in 0..7 {
            requests[1].meter.add_token();
        }
        count.count_event(1);
        assert_eq!(count.charged_tokens(), 10 + 5 + 7);
    }

    #[test]
    fn choice_without_meter_pays_one_token_per_event() {
        let (mut count, _requests) = count(1, 1);
        for _ in 0..3 {
            count.count_event(0);
        }
        assert_eq!(count.charged_tokens(), 3);
    }
}
