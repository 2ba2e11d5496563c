use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::testing::{Events, FakeModel, prepare};

/// The part of `text` that a client must receive: everything before the stop string that is complete first.
fn expected(text: &[u8], stop: &[String]) -> Vec<u8> {
    for end in 1..=text.len() {
        let complete = stop.iter().filter(|stop| text[..end].ends_with(stop.as_bytes()));
        if let Some(longest) = complete.map(String::len).max() {
            return text[..end - longest].to_vec();
        }
    }
    text.to_vec()
}

/// Sends `text` in tokens of one byte. Returns the text after each token.
async fn sent(text: &[u8], stop: Vec<String>) -> Vec<String> {
    let max_tokens = u32::try_from(text.len()).unwrap();
    let request = Request { stop: stop.into(), max_tokens: Some(max_tokens), ..Request::default() };
    let session = Box::new(FakeModel::new("bytes", "").target(0, max_tokens));
    let opened = OpenedTarget { session, cached_tokens: 0, prepared: prepare(Arc::new(request)) };
    let (sink, mut events) = Events::new();
    let mut output = Output::new(&opened, sink);
    let mut sent = Vec::new();
    for byte in text {
        let committed = vec![CommittedToken { token: u32::from(*byte), logprobs: None }];
        let step = StepResult { committed, ..StepResult::default() };
        let finished = output.commit(&step, opened.session.as_ref()).await.unwrap();
        sent.push(events.text());
        if finished {
            break;
        }
    }
    sent
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

proptest! {
    #[test]
    fn client_receives_the_text_before_the_first_stop_string(
        text in "[ab]{1,24}",
        stop in vec("[ab]{1,4}", 0..4),
    ) {
        let sent = run(sent(text.as_bytes(), stop.clone()));
        prop_assert_eq!(sent.concat().into_bytes(), expected(text.as_bytes(), &stop));
    }

    #[test]
    fn output_never_cuts_characters(text in "[aé€🦀]{1,12}") {
        let sent = run(sent(text.as_bytes(), Vec::new()));
        prop_assert!(sent.iter().all(|part| !part.contains('\u{fffd}')), "{:?}", sent);
        prop_assert_eq!(sent.concat(), text);
    }
}
