//! Chat templates, as the models' authors wrote them: Jinja, rendered by llama.cpp's `common` library, which its community
//! keeps current for new models.
//!
//! A template comes with a downloaded model. The library has no limit of steps or memory, and some of its failures end
//! the process. So it runs in a helper process with limits (`helper.rs`). The host talks to it by lines of JSON
//! (`helpers.rs`). The C++ side is `native/shim.cpp`.

mod error;
mod helper;
mod helpers;
mod native;
mod template;

// The library calls functions of llama.cpp.
use llama_cpp_sys_2 as _;

pub use error::ChatError;
pub use helper::run_helper;
pub use helpers::enable_helpers;
pub use template::{Conversation, Template, TemplateFacts};
