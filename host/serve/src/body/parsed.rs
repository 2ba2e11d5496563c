//! The two endpoints' requests, checked.

use tightwad_core::{Format, Prompt, Request, ToolChoice};
use tightwad_net::http::ApiError;

use crate::body::fields::{Body, Text};
use crate::body::format;
use crate::body::messages::messages;
use crate::body::sampling::samplings;
use crate::body::shape::Shape;

/// Most choices of one request.
const CHOICES: usize = 8;
/// Most stop strings.
const STOPS: usize = 16;

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

/// A request to `/v1/chat/completions`.
pub(crate) fn chat(mut body: Body, id: &str) -> Result<Parsed, ApiError> {
    let Some(given) = body.messages.take() else {
        return Err(ApiError::invalid(Some("messages"), "'messages' is missing"));
    };
    let prompt = Prompt::Chat(messages(given)?);
    parsed(body, vec![prompt], Shape::Chat, id)
}

/// A request to `/v1/completions`.
pub(crate) fn completion(mut body: Body, id: &str) -> Result<Parsed, ApiError> {
    let Some(given) = body.prompt.take() else {
        return Err(ApiError::invalid(Some("prompt"), "'prompt' is missing"));
    };
    if body.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
        return Err(ApiError::invalid(Some("suffix"), "'suffix' is not supported: put it into the prompt"));
    }
    if body.echo == Some(true) {
        return Err(ApiError::invalid(Some("echo"), "'echo' is not supported"));
    }
    let prompts = given.into_vec().into_iter().map(Prompt::Text).collect();
    parsed(body, prompts, Shape::Completion, id)
}

fn parsed(mut body: Body, prompts: Vec<Prompt>, shape: Shape, id: &str) -> Result<Parsed, ApiError> {
    let n = body.n.unwrap_or(1) as usize;
    if n == 0 || prompts.is_empty() || n * prompts.len() > CHOICES {
        let message = format!("a request has 1 to {CHOICES} choices, not {}", n * prompts.len());
        return Err(ApiError::invalid(Some("n"), message));
    }
    if body.best_of.is_some_and(|best_of| best_of as usize > n) {
        return Err(ApiError::invalid(Some("best_of"), "'best_of' above 'n' is not supported"));
    }
    let samplings = samplings(&body, shape, prompts.len() * n)?;
    let stop = stops(body.stop.take())?;
    let (tools, tool_choice) = format::tools(body.tools.take(), body.tool_choice.take())?;
    let format = output_format(&mut body)?;
    let max_tokens = body.max_completion_tokens.or(body.max_tokens);
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
        stream: body.stream.unwrap_or(false),
        include_usage: body.stream_options.as_ref().and_then(|o| o.include_usage).unwrap_or(false),
        tools: !tools.is_empty() && tool_choice != ToolChoice::None,
    })
}

fn stops(given: Option<Text>) -> Result<Vec<String>, ApiError> {
    let stops = given.map(Text::into_vec).unwrap_or_default();
    if stops.len() > STOPS || stops.iter().any(String::is_empty) {
        let message = format!("'stop' takes up to {STOPS} strings, none of them empty");
        return Err(ApiError::invalid(Some("stop"), message));
    }
    Ok(stops)
}

fn output_format(body: &mut Body) -> Result<Format, ApiError> {
    match (body.response_format.take(), body.grammar.take()) {
        (Some(_), Some(_)) => {
            Err(ApiError::invalid(Some("grammar"), "'grammar' and 'response_format' exclude each other"))
        }
        (Some(format), None) => Ok(format.into()),
        (None, Some(grammar)) => Ok(Format::Grammar(grammar)),
        (None, None) => Ok(Format::Text),
    }
}
