//! Generated from `wit/`, one module per world.
//!
//! A crate can generate the code of an exported interface only once, and every world exports `plugin`. So the worlds here
//! are those of `wit/world.wit` without that export; [`identity`] adds it. A component gets the exports of both.
#![allow(missing_docs, clippy::all)]

pub mod identity {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package tightwad:sdk;
            world identity {
                export tightwad:plugin/plugin@0.1.0;
            }
        ",
        world: "tightwad:sdk/identity",
        pub_export_macro: true,
        export_macro_name: "__export_identity",
    });
}

/// The world of approximate modes. It is the world of exact modes with more imports, and a component imports only what
/// it uses: so exact modes use this module, too.
pub mod mode {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package tightwad:sdk;
            world mode {
                import tightwad:plugin/log@0.1.0;
                import tightwad:plugin/clock@0.1.0;
                import tightwad:plugin/decoding@0.1.0;
                import tightwad:plugin/unverified@0.1.0;
                import tightwad:plugin/active-policy@0.1.0;
                export tightwad:plugin/mode@0.1.0;
            }
        ",
        world: "tightwad:sdk/mode",
        generate_unused_types: true,
        additional_derives: [PartialEq],
        generate_all,
        pub_export_macro: true,
        export_macro_name: "__export_mode_component",
    });
}

pub mod consensus_policy {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package tightwad:sdk;
            world consensus-policy {
                import tightwad:plugin/log@0.1.0;
                export tightwad:plugin/consensus-policy@0.1.0;
            }
        ",
        world: "tightwad:sdk/consensus-policy",
        with: {
            "tightwad:plugin/log@0.1.0": super::mode::tightwad::plugin::log,
            "tightwad:plugin/types@0.1.0": super::mode::tightwad::plugin::types,
            "tightwad:plugin/ballots@0.1.0": super::mode::tightwad::plugin::ballots,
        },
        pub_export_macro: true,
        export_macro_name: "__export_consensus_policy",
    });
}

pub mod gate_mode {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package tightwad:sdk;
            world gate-mode {
                import tightwad:plugin/log@0.1.0;
                import tightwad:plugin/clock@0.1.0;
                import tightwad:plugin/reviewing@0.1.0;
                export tightwad:plugin/gate-mode@0.1.0;
            }
        ",
        world: "tightwad:sdk/gate-mode",
        with: {
            "tightwad:plugin/log@0.1.0": super::mode::tightwad::plugin::log,
            "tightwad:plugin/clock@0.1.0": super::mode::tightwad::plugin::clock,
            "tightwad:plugin/types@0.1.0": super::mode::tightwad::plugin::types,
            "tightwad:plugin/ballots@0.1.0": super::mode::tightwad::plugin::ballots,
            "tightwad:plugin/decoding@0.1.0": super::mode::tightwad::plugin::decoding,
        },
        additional_derives: [PartialEq],
        generate_all,
        pub_export_macro: true,
        export_macro_name: "__export_gate_mode",
    });
}

pub mod gate_policy {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package tightwad:sdk;
            world gate-policy {
                import tightwad:plugin/log@0.1.0;
                export tightwad:plugin/gate-policy@0.1.0;
            }
        ",
        world: "tightwad:sdk/gate-policy",
        with: {
            "tightwad:plugin/log@0.1.0": super::mode::tightwad::plugin::log,
            "tightwad:plugin/types@0.1.0": super::mode::tightwad::plugin::types,
            "tightwad:plugin/answers@0.1.0": super::gate_mode::tightwad::plugin::answers,
        },
        pub_export_macro: true,
        export_macro_name: "__export_gate_policy",
    });
}

pub mod placement_policy {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package tightwad:sdk;
            world placement-policy {
                import tightwad:plugin/log@0.1.0;
                export tightwad:plugin/placement-policy@0.1.0;
            }
        ",
        world: "tightwad:sdk/placement-policy",
        with: {
            "tightwad:plugin/log@0.1.0": super::mode::tightwad::plugin::log,
            "tightwad:plugin/types@0.1.0": super::mode::tightwad::plugin::types,
        },
        additional_derives: [PartialEq],
        pub_export_macro: true,
        export_macro_name: "__export_placement_policy",
    });
}

pub mod piece_picker {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package tightwad:sdk;
            world piece-picker {
                import tightwad:plugin/log@0.1.0;
                export tightwad:plugin/piece-picker@0.1.0;
            }
        ",
        world: "tightwad:sdk/piece-picker",
        with: {
            "tightwad:plugin/log@0.1.0": super::mode::tightwad::plugin::log,
            "tightwad:plugin/types@0.1.0": super::mode::tightwad::plugin::types,
        },
        additional_derives: [PartialEq],
        pub_export_macro: true,
        export_macro_name: "__export_piece_picker",
    });
}
