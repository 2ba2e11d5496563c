//! Checks the requests of both endpoints.

use std::sync::Arc;

use tightwad_core::{ChatOptions, Format, Prompt, Request, Tool, ToolChoice};
use tightwad_net::http::ApiError;

use crate::body::chat_options::chat_options;
use crate::body::fields::{RequestBody, StringOrList};
use crate::body::format;
use crate::body::messages::messages;
use crate::body::sampling::samplings;
use crate::endpoint::Endpoint;

/// The maximum number of choices of one request.
const MAX_CHOICES: usize = 8;
/// The maximum number of stop strings of one request.
const MAX_STOP_STRINGS: usize = 16;
/// The maximum length of a stop string in bytes: a client waits for text that can belong to a stop string.
const MAX_STOP_BYTES: usize = 1024;
/// The maximum length of a grammar in bytes.
const MAX_GRAMMAR_BYTES: usize = 256 << 10;

/// A checked request: the requests for backends, and the form of the response.
#[derive(Debug)]
pub(crate) struct CheckedRequest {
    /// One request per choice.
    pub requests: Vec<Request>,
    /// The choices of the first prompt come first.
    pub choices_per_prompt: usize,
    pub endpoint: Endpoint,
    pub stream: bool,
    pub include_usage: bool,
    /// True if the model may call tools.
    pub tools: bool,
}

/// Checks a request to `/v1/chat/completions`.
pub(crate) fn chat(mut body: RequestBody, id: &str) -> Result<CheckedRequest, ApiError> {
    let Some(given) = body.messages.take() else {
        return Err(ApiError::invalid(Some("messages"), "'messages' is missing"));
    };
    let messages = messages(given, &mut body.size)?;
    let options = chat_options(&mut body, &messages)?;
    check(body, vec![Prompt::Chat(messages.into())], options, Endpoint::Chat, id)
}

/// Checks a request to `/v1/completions`.
pub(crate) fn completion(mut body: RequestBody, id: &str) -> Result<CheckedRequest, ApiError> {
    let Some(given) = body.prompt.take() else {
        return Err(ApiError::invalid(Some("prompt"), "'prompt' is missing"));
    };
    if body.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
        return Err(ApiError::invalid(Some("suffix"), "'suffix' is not supported: put it into the prompt"));
    }
    if body.echo == Some(true) {
        return Err(ApiError::invalid(Some("echo"), "'echo' is not supported"));
    }
    let prompts = given.into_vec().into_iter().map(|text| Prompt::Text(text.into())).collect();
    check(body, prompts, ChatOptions::default(), Endpoint::Completion, id)
}

fn check(
    mut body: RequestBody,
    prompts: Vec<Prompt>,
    chat: ChatOptions,
    endpoint: Endpoint,
    id: &str,
) -> Result<CheckedRequest, ApiError> {
    let n = choices_per_prompt(&body, prompts.len())?;
    let samplings = samplings(&body, endpoint, prompts.len() * n)?;
    let stop: Arc<[String]> = stop_strings(body.stop.take())?.into();
    let (tools, tool_choice) = format::tools(body.tools.take(), body.tool_choice.take())?;
    let tools: Arc<[Tool]> = tools.into();
    let format = output_format(&mut body)?;
    let max_tokens = body.max_completion_tokens.or(body.max_tokens);
    if max_tokens == Some(0) {
        return Err(ApiError::invalid(Some("max_tokens"), "'max_tokens' must be at least 1"));
    }
    let prompts = prompts.iter().flat_map(|prompt| std::iter::repeat_n(prompt, n));
    let requests = prompts.zip(samplings).enumerate().map(|(index, (prompt, sampling))| Request {
        id: format!("{id}-{index}"),
        prompt: prompt.clone(),
        chat: chat.clone(),
        sampling,
        max_tokens,
        stop: stop.clone(),
        format: format.clone(),
        tools: tools.clone(),
        tool_choice: tool_choice.clone(),
        owner: None,
        meter: Arc::default(),
    });
    Ok(CheckedRequest {
        requests: requests.collect(),
        choices_per_prompt: n,
        endpoint,
        stream: body.stream.unwrap_or(false),
        include_usage: body.stream_options.as_ref().and_then(|o| o.include_usage).unwrap_or(false),
        tools: !tools.is_empty() && tool_choice != ToolChoice::None,
    })
}

fn choices_per_prompt(body: &RequestBody, prompt_count: usize) -> Result<usize, ApiError> {
    let n = body.n.unwrap_or(1) as usize;
    let choices = n.saturating_mul(prompt_count);
    if !(1..=MAX_CHOICES).contains(&choices) {
        let message = format!("a request has 1 to {MAX_CHOICES} choices, not {choices}");
        return Err(ApiError::invalid(Some("n"), message));
    }
    if body.best_of.is_some_and(|best_of| best_of as usize > n) {
        return Err(ApiError::invalid(Some("best_of"), "'best_of' above 'n' is not supported"));
    }
    Ok(n)
}

fn stop_strings(stop: Option<StringOrList>) -> Result<Vec<String>, ApiError> {
    let stops = stop.map(StringOrList::into_vec).unwrap_or_default();
    let is_valid = |stop: &String| (1..=MAX_STOP_BYTES).contains(&stop.len());
    if stops.len() > MAX_STOP_STRINGS || !stops.iter().all(is_valid) {
        let message = format!("'stop' takes up to {MAX_STOP_STRINGS} strings of 1 to {MAX_STOP_BYTES} bytes");
        return Err(ApiError::invalid(Some("stop"), message));
    }
    Ok(stops)
}

fn output_format(body: &mut RequestBody) -> Result<Format, ApiError> {
    let grammar = body.grammar.take().or(body.guided_grammar.take());
    match (body.response_format.take(), grammar) {
        (Some(_), Some(_)) => {
            Err(ApiError::invalid(Some("grammar"), "'grammar' and 'response_format' exclude each other"))
        }
        (Some(format), None) => Ok(format.into()),
        (None, Some(grammar)) if grammar.len() > MAX_GRAMMAR_BYTES => {
            let message = format!("'grammar' has more than {MAX_GRAMMAR_BYTES} bytes");
            Err(ApiError::invalid(Some("grammar"), message))
        }
        (None, Some(grammar)) => Ok(Format::Grammar(grammar.into())),
        (None, None) => Ok(Format::Text),
    }
}
