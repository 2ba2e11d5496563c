//! Piece pickers: the world `piece-picker-plugin`.

use crate::Duration;
pub use crate::bindings::piece_picker::exports::tightwad::plugin::piece_picker::{
    Event, Fault, Fetch, FetchResult, PeerId, PieceIndex, PieceSet, Slot, Task,
};

/// Picks the next pieces of one pull, and the peers that send them. One value serves one pull.
///
/// ```
/// use tightwad_plugin_sdk::piece_picker::{Event, Fetch, PieceIndex, Slot, Task};
/// use tightwad_plugin_sdk::{Duration, PiecePicker, export_piece_picker};
///
/// /// Fetches the wanted pieces in order, from any peer with a free slot.
/// struct InOrder {
///     wanted: Vec<PieceIndex>,
/// }
///
/// impl PiecePicker for InOrder {
///     const NAME: &'static str = "in-order";
///     const VERSION: &'static str = env!("CARGO_PKG_VERSION");
///
///     fn start(task: Task) -> Self {
///         Self { wanted: task.wanted }
///     }
///
///     fn pick(&mut self, _now: Duration, events: Vec<Event>, slots: &[Slot]) -> Vec<Fetch> {
///         for event in events {
///             if let Event::FetchEnded(result) = event
///                 && result.fault.is_none()
///             {
///                 self.wanted.retain(|piece| *piece != result.piece);
///             }
///         }
///         // The host ignores a fetch of a piece that the peer does not have.
///         let peers = slots.iter().filter(|slot| slot.free > 0).map(|slot| slot.peer);
///         peers.zip(&self.wanted).map(|(peer, piece)| Fetch { peer, piece: *piece }).collect()
///     }
/// }
///
/// export_piece_picker!(InOrder);
///
/// let task =
///     Task { piece_sizes: vec![9; 3], wanted: vec![2, 0], urgent: 0, seed: 1, settings: Vec::new() };
/// let mut picker = InOrder::start(task);
/// let slots = [Slot { peer: 4, free: 0 }, Slot { peer: 5, free: 2 }];
/// assert_eq!(picker.pick(0, Vec::new(), &slots), [Fetch { peer: 5, piece: 2 }]);
/// ```
pub trait PiecePicker: Sized + 'static {
    /// Short name, as logs, reports and metrics show it.
    const NAME: &'static str;
    /// Semantic version of the plugin.
    const VERSION: &'static str;

    /// Begins a pull. The host calls it once.
    fn start(task: Task) -> Self;

    /// Returns the fetches to start, at most `free` per slot. `events` are the events since the last call, in order; `now`
    /// is the time since the start. The host checks every fetch.
    fn pick(&mut self, now: Duration, events: Vec<Event>, slots: &[Slot]) -> Vec<Fetch>;
}

/// Exports a type that implements [`PiecePicker`](crate::PiecePicker) as this component's picker, and keeps its value.
#[macro_export]
macro_rules! export_piece_picker {
    ($picker:ty) => {
        struct ExportedPicker;

        ::std::thread_local! {
            static PICKER: ::std::cell::RefCell<Option<$picker>> = const { ::std::cell::RefCell::new(None) };
        }

        $crate::__export_plugin!(ExportedPicker, $picker as PiecePicker);

        impl $crate::bindings::piece_picker::exports::tightwad::plugin::piece_picker::Guest
            for ExportedPicker
        {
            fn start(task: $crate::piece_picker::Task) {
                $crate::install_panic_hook();
                let picker = <$picker as $crate::PiecePicker>::start(task);
                PICKER.with_borrow_mut(|slot| *slot = Some(picker));
            }

            fn pick(
                now: $crate::Duration,
                events: Vec<$crate::piece_picker::Event>,
                slots: Vec<$crate::piece_picker::Slot>,
            ) -> Vec<$crate::piece_picker::Fetch> {
                // Before `start` there is nothing to fetch.
                PICKER.with_borrow_mut(|picker| match picker {
                    Some(picker) => <$picker as $crate::PiecePicker>::pick(picker, now, events, &slots),
                    None => Vec::new(),
                })
            }
        }

        // On other targets a linker rejects the export's name, and unit tests do not need the export.
        #[cfg(target_arch = "wasm32")]
        $crate::bindings::piece_picker::__export_piece_picker!(
            ExportedPicker with_types_in $crate::bindings::piece_picker
        );
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn($crate::piece_picker::Task) =
            <ExportedPicker as $crate::bindings::piece_picker::exports::tightwad::plugin::piece_picker::Guest>::start;
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn(
            $crate::Duration,
            Vec<$crate::piece_picker::Event>,
            Vec<$crate::piece_picker::Slot>,
        ) -> Vec<$crate::piece_picker::Fetch> =
            <ExportedPicker as $crate::bindings::piece_picker::exports::tightwad::plugin::piece_picker::Guest>::pick;
    };
}
