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
///
/// ```
/// use tightwad_plugin_sdk::export_swarm;
/// use tightwad_plugin_sdk::swarm::{Event, Fetch, Slot, Swarm, Task};
///
/// /// Fetches the wanted pieces in order, from any peer with a free slot.
/// struct InOrder {
///     wanted: Vec<u32>,
/// }
///
/// impl Swarm for InOrder {
///     const NAME: &'static str = "in-order";
///     const VERSION: &'static str = env!("CARGO_PKG_VERSION");
///
///     fn start(task: Task) -> Self {
///         Self { wanted: task.wanted }
///     }
///
///     fn pick(&mut self, _now: u64, events: Vec<Event>, slots: &[Slot]) -> Vec<Fetch> {
///         for event in events {
///             if let Event::Done(fetched) = event
///                 && fetched.fault.is_none()
///             {
///                 self.wanted.retain(|piece| *piece != fetched.piece);
///             }
///         }
///         let peers = slots.iter().filter(|slot| slot.free > 0).map(|slot| slot.peer);
///         peers.zip(&self.wanted).map(|(peer, piece)| Fetch { peer, piece: *piece }).collect()
///     }
/// }
///
/// export_swarm!(InOrder);
///
/// let task = Task { pieces: vec![9; 3], wanted: vec![2, 0], urgent: 0, seed: 1, settings: "{}".into() };
/// let mut pull = InOrder::start(task);
/// let slots = [Slot { peer: 4, free: 0 }, Slot { peer: 5, free: 2 }];
/// assert_eq!(pull.pick(0, Vec::new(), &slots), [Fetch { peer: 5, piece: 2 }]);
/// ```
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
