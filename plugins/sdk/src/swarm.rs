//! Writing a swarm plugin: the world `picking`.

pub use crate::picking::exports::tightwad::plugin::swarm::{
    Event, Fault, Fetch, Fetched, Having, Peer, Slot, Task,
};

/// A policy that picks what a pull fetches next, and from whom. One value serves one pull.
pub trait Swarm: Sized + 'static {
    /// Short name, as scripts and metrics show it.
    const NAME: &'static str;
    /// Semantic version.
    const VERSION: &'static str;

    /// Says what is to be fetched; called once.
    fn start(task: Task) -> Self;

    /// Says what happened since the last call, in order, and asks for at most `free` fetches a slot. `now`
    /// counts nanoseconds from the start. The host checks every fetch.
    fn pick(&mut self, now: u64, events: Vec<Event>, slots: &[Slot]) -> Vec<Fetch>;
}

/// Exports a type that implements [`Swarm`] as this component's policy, and keeps its one value.
#[macro_export]
macro_rules! export_swarm {
    ($swarm:ty) => {
        struct ExportedSwarm;

        ::std::thread_local! {
            static PULL: ::std::cell::RefCell<Option<$swarm>> = const { ::std::cell::RefCell::new(None) };
        }

        impl $crate::picking::exports::tightwad::plugin::swarm::Guest for ExportedSwarm {
            fn describe() -> $crate::picking::exports::tightwad::plugin::swarm::Info {
                $crate::picking::exports::tightwad::plugin::swarm::Info {
                    name: <$swarm as $crate::Swarm>::NAME.into(),
                    version: <$swarm as $crate::Swarm>::VERSION.into(),
                }
            }

            fn start(task: $crate::swarm::Task) {
                $crate::install_panic_hook();
                let pull = <$swarm as $crate::Swarm>::start(task);
                PULL.with_borrow_mut(|place| *place = Some(pull));
            }

            fn pick(
                now: u64,
                events: Vec<$crate::swarm::Event>,
                slots: Vec<$crate::swarm::Slot>,
            ) -> Vec<$crate::swarm::Fetch> {
                // Nothing is to be fetched before `start`.
                PULL.with_borrow_mut(|pull| match pull {
                    Some(pull) => <$swarm as $crate::Swarm>::pick(pull, now, events, &slots),
                    None => Vec::new(),
                })
            }
        }

        // Elsewhere the export's name is no symbol that a linker takes, and unit tests need none.
        #[cfg(target_arch = "wasm32")]
        $crate::__export_picking!(ExportedSwarm with_types_in $crate::picking);
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn($crate::swarm::Task) =
            <ExportedSwarm as $crate::picking::exports::tightwad::plugin::swarm::Guest>::start;
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn(
            u64,
            Vec<$crate::swarm::Event>,
            Vec<$crate::swarm::Slot>,
        ) -> Vec<$crate::swarm::Fetch> =
            <ExportedSwarm as $crate::picking::exports::tightwad::plugin::swarm::Guest>::pick;
    };
}
