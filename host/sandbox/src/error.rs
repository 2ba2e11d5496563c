//! What a plugin can do wrong. Every message names the plugin, its version and the call.

/// A plugin that cannot be loaded, or that was stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PluginError {
    /// The file cannot be read.
    #[error("plugin '{plugin}': cannot read {path}: {reason}")]
    Unreadable {
        /// The plugin.
        plugin: String,
        /// Its file.
        path: String,
        /// The operating system's reason.
        reason: String,
    },
    /// No built-in plugin and no file has that name.
    #[error(
        "no plugin is named '{plugin}': built in are {known}; a file {plugin}.wasm in the plugins folder, or a path, works too"
    )]
    Unknown {
        /// The name asked for.
        plugin: String,
        /// The names that exist.
        known: String,
    },
    /// The file is no component.
    #[error("plugin '{plugin}' is not a WebAssembly component: {reason}")]
    NotComponent {
        /// The plugin.
        plugin: String,
        /// What it is instead.
        reason: String,
    },
    /// The component speaks another contract.
    #[error("plugin '{plugin}' does not fit this host, which speaks {contract}: {reason}")]
    Contract {
        /// The plugin.
        plugin: String,
        /// The contract of this host.
        contract: &'static str,
        /// What does not fit.
        reason: String,
    },
    /// The component hit a trap: a panic, an access out of bounds, ...
    #[error("plugin {plugin} trapped in {call}: {reason}")]
    Trapped {
        /// Name and version.
        plugin: String,
        /// The call that did not return.
        call: &'static str,
        /// The trap, and what the plugin logged before it.
        reason: String,
    },
    /// The component computed too long without calling the host.
    #[error("plugin {plugin} ran longer than {milliseconds} ms in {call} without calling the host")]
    TimedOut {
        /// Name and version.
        plugin: String,
        /// The call that did not return.
        call: &'static str,
        /// The limit.
        milliseconds: u64,
    },
    /// The component wanted more memory than it may have.
    #[error("plugin {plugin} ran out of memory in {call}: its limit is {mebibytes} MiB")]
    OutOfMemory {
        /// Name and version.
        plugin: String,
        /// The call that did not return.
        call: &'static str,
        /// The limit.
        mebibytes: usize,
    },
    /// The component called the host too often.
    #[error("plugin {plugin} made more than {calls} host calls in {call}")]
    Budget {
        /// Name and version.
        plugin: String,
        /// The call that did not return.
        call: &'static str,
        /// The limit.
        calls: u64,
    },
    /// The file is not the one that the script wants.
    #[error(
        "plugin '{plugin}' has the SHA-256 {found}, and the script wants {wanted}: get that file, or change `sha256`"
    )]
    Pinned {
        /// The plugin.
        plugin: String,
        /// The digest of the file.
        found: String,
        /// The digest in the script.
        wanted: String,
    },
    /// The component failed again and again.
    #[error("plugin {plugin} failed too often and is left alone for a while")]
    LeftAlone {
        /// Name and version.
        plugin: String,
    },
    /// The component itself says that it failed.
    #[error("plugin {plugin} failed in {call}: {message}")]
    Failed {
        /// Name and version.
        plugin: String,
        /// The call.
        call: &'static str,
        /// The plugin's own words.
        message: String,
    },
}
