//! Errors of plugins. Each message names the plugin. After the call of `describe`, a message also names the plugin's
//! version and the failed call.

/// The reason why a plugin cannot be loaded, or why one of its calls failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PluginError {
    /// The file cannot be read.
    #[error("plugin '{plugin}': cannot read {path}: {reason}")]
    Unreadable {
        /// The plugin's name.
        plugin: String,
        /// The file.
        path: String,
        /// The operating system's reason.
        reason: String,
    },
    /// Neither a built-in plugin nor a file has the name.
    #[error(
        "no plugin is named '{plugin}'. The built-in plugins of this kind are {built_in}. Use one of them, put {plugin}.wasm into a plugins folder, or name a path that ends in `.wasm`."
    )]
    NotFound {
        /// The name in the script.
        plugin: String,
        /// The names of the built-in plugins of this kind.
        built_in: String,
    },
    /// The file is not a component.
    #[error("plugin '{plugin}' is not a WebAssembly component: {reason}")]
    NotComponent {
        /// The plugin's name.
        plugin: String,
        /// The actual content of the file.
        reason: String,
    },
    /// The component was built for a version of the contract that the host does not load.
    #[error(
        "plugin '{plugin}' was built for contract {built_for}. This host loads contract {contract}. Rebuild the plugin with the `wit` folder of this host."
    )]
    OtherContract {
        /// The plugin's name.
        plugin: String,
        /// The contract that the plugin was built for.
        built_for: String,
        /// The contract of this host.
        contract: &'static str,
    },
    /// The component does not fit the contract.
    #[error("plugin '{plugin}' does not fit contract {contract} of this host: {reason}")]
    ContractMismatch {
        /// The plugin's name.
        plugin: String,
        /// The contract of this host.
        contract: &'static str,
        /// The difference.
        reason: String,
    },
    /// The component trapped: a panic, an access out of bounds or another fault.
    #[error("plugin {plugin} trapped in {call}: {reason}")]
    Trapped {
        /// The plugin's name and version.
        plugin: String,
        /// The call that did not return.
        call: &'static str,
        /// The trap, and the last error that the plugin logged before it.
        reason: String,
    },
    /// The component computed for too long between two host calls.
    #[error("plugin {plugin} ran longer than {milliseconds} ms in {call} without calling the host")]
    ComputeTimeout {
        /// The plugin's name and version.
        plugin: String,
        /// The call that did not return.
        call: &'static str,
        /// The limit.
        milliseconds: u64,
    },
    /// The component computed for too long in total.
    #[error("plugin {plugin} computed for more than {milliseconds} ms in {call}")]
    TotalComputeTimeout {
        /// The plugin's name and version.
        plugin: String,
        /// The call that did not return.
        call: &'static str,
        /// The limit.
        milliseconds: u64,
    },
    /// All instances of the host are in use. This is not a fault of the plugin.
    #[error(
        "plugin {plugin} has no free instance for {call}: the host runs at most {instances} at the same time"
    )]
    NoFreeInstance {
        /// The plugin's name and version.
        plugin: String,
        /// The call that did not start.
        call: &'static str,
        /// The limit.
        instances: u32,
    },
    /// The call exceeded its timeout. Sleeping counts too.
    #[error("plugin {plugin} did not return from {call} within {milliseconds} ms")]
    CallTimeout {
        /// The plugin's name and version.
        plugin: String,
        /// The call that did not return.
        call: &'static str,
        /// The limit.
        milliseconds: u64,
    },
    /// The component requested more memory than its limit.
    #[error("plugin {plugin} ran out of memory in {call}: its limit is {mebibytes} MiB")]
    OutOfMemory {
        /// The plugin's name and version.
        plugin: String,
        /// The call that did not return.
        call: &'static str,
        /// The limit.
        mebibytes: usize,
    },
    /// The component made too many host calls.
    #[error("plugin {plugin} made more than {calls} host calls in {call}")]
    OutOfCalls {
        /// The plugin's name and version.
        plugin: String,
        /// The call that did not return.
        call: &'static str,
        /// The limit, without the calls that each token adds.
        calls: u64,
    },
    /// The file's digest differs from the digest in the script.
    #[error(
        "plugin '{plugin}' has the SHA-256 {found}. The script expects {expected}. Get that file, or change the digest in the script."
    )]
    DigestMismatch {
        /// The plugin's name.
        plugin: String,
        /// The digest of the file.
        found: String,
        /// The digest in the script.
        expected: String,
    },
    /// The component failed several times in a row. The host does not call the component during a cooldown.
    #[error("plugin {plugin} failed too often. The host does not call it during a cooldown.")]
    CircuitOpen {
        /// The plugin's name and version.
        plugin: String,
    },
    /// The component returned an error, or an invalid value.
    #[error("plugin {plugin} failed in {call}: {message}")]
    Failed {
        /// The plugin's name and version.
        plugin: String,
        /// The call.
        call: &'static str,
        /// The plugin's message, or the fault in the value.
        message: String,
    },
}

impl PluginError {
    /// False if the host is overloaded and the plugin did nothing wrong.
    #[must_use]
    pub fn is_plugin_fault(&self) -> bool {
        !matches!(self, Self::NoFreeInstance { .. })
    }
}
