//! The two endpoints' requests, checked.

use tightwad_core::{Format, Prompt, Request, ToolChoice};
use tightwad_net::http::ApiError;

use crate::body::Body;
use crate::body::messages::messages;

/// Most choices of one request.
const CHOICES: usize = 8;
/// Most stop strings.
const STOPS: usize = 16;

/// Which endpoint's objects answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Chat,
    Completion,
}

impl Shape {
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::Chat => "chatcmpl",
            Self::Completion => "cmpl",
        }
    }
}

/// What to generate and how to answer.
#[derive(Debug)]
pub(crate) struct Parsed {
    /// One a choice.
    pub requests: Vec<Request>,
    pub shape: Shape,
    pub stream: bool,
    pub include_usage: bool,
    /// The model may call tools.
    pub tools: bool,
}

impl Body {
    /// A request to `/v1/chat/completions`.
    pub(crate) fn chat(mut self, id: &str) -> Result<Parsed, ApiError> {
        let Some(given) = self.messages.take() else {
            return Err(ApiError::invalid(Some("messages"), "'messages' is missing"));
        };
        let prompt = Prompt::Chat(messages(given)?);
        self.parsed(vec![prompt], Shape::Chat, id)
    }

    /// A request to `/v1/completions`.
    pub(crate) fn completion(mut self, id: &str) -> Result<Parsed, ApiError> {
        let Some(given) = self.prompt.take() else {
            return Err(ApiError::invalid(Some("prompt"), "'prompt' is missing"));
        };
        if self.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
            return Err(ApiError::invalid(
                Some("suffix"),
                "'suffix' is not supported: put it into the prompt",
            ));
        }
        if self.echo == Some(true) {
            return Err(ApiError::invalid(Some("echo"), "'echo' is not supported"));
        }
        let prompts = given.into_vec().into_iter().map(Prompt::Text).collect();
        self.parsed(prompts, Shape::Completion, id)
    }

    fn parsed(mut self, prompts: Vec<Prompt>, shape: Shape, id: &str) -> Result<Parsed, ApiError> {
        let n = self.n.unwrap_or(1) as usize;
        if n == 0 || prompts.is_empty() || n * prompts.len() > CHOICES {
            let message = format!("a request has 1 to {CHOICES} choices, not {}", n * prompts.len());
            return Err(ApiError::invalid(Some("n"), message));
        }
        if self.best_of.is_some_and(|best_of| best_of as usize > n) {
            return Err(ApiError::invalid(Some("best_of"), "'best_of' above 'n' is not supported"));
        }
        let samplings = self.samplings(shape, prompts.len() * n)?;
        let stop = self.stops()?;
        let (tools, tool_choice) = self.take_tools()?;
        let format = self.take_format()?;
        let max_tokens = self.max_completion_tokens.or(self.max_tokens);
        if max_tokens == Some(0) {
            return Err(ApiError::invalid(Some("max_tokens"), "'max_tokens' must be at least 1"));
        }
        let prompts = prompts.iter().flat_map(|prompt| std::iter::repeat_n(prompt, n));
        let requests = prompts.zip(samplings).enumerate().map(|(index, (prompt, sampling))| Request {
            id: format!("{id}-{index}"),
            prompt: prompt.clone(),
            sampling,
            max_tokens,
            stop: stop.clone(),
            format: format.clone(),
            tools: tools.clone(),
            tool_choice: tool_choice.clone(),
        });
        Ok(Parsed {
            requests: requests.collect(),
            shape,
            stream: self.stream.unwrap_or(false),
            include_usage: self.stream_options.as_ref().and_then(|o| o.include_usage).unwrap_or(false),
            tools: !tools.is_empty() && tool_choice != ToolChoice::None,
        })
    }

    fn stops(&mut self) -> Result<Vec<String>, ApiError> {
        let stops = self.stop.take().map(crate::body::Text::into_vec).unwrap_or_default();
        if stops.len() > STOPS || stops.iter().any(String::is_empty) {
            let message = format!("'stop' takes up to {STOPS} strings, none of them empty");
            return Err(ApiError::invalid(Some("stop"), message));
        }
        Ok(stops)
    }

    fn take_format(&mut self) -> Result<Format, ApiError> {
        match (self.response_format.take(), self.grammar.take()) {
            (Some(_), Some(_)) => {
                Err(ApiError::invalid(Some("grammar"), "'grammar' and 'response_format' exclude each other"))
            }
            (Some(format), None) => Ok(format.into()),
            (None, Some(grammar)) => Ok(Format::Grammar(grammar)),
            (None, None) => Ok(Format::Text),
        }
    }
}
