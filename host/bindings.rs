//! What bindgen makes of `wit/`, and nothing else.
//!
//! The world here is the host's view: the imports that it can link and the exports that it looks up.
//! A worker never has to match it whole; `sandbox` links one interface at a time and `worker` finds
//! one export at a time.

#![allow(missing_docs, clippy::all)]

wasmtime::component::bindgen!({
    path: "wit",
    inline: "
        package crank:host;
        world host {
            import crank:worker/log@0.1.0;
            import crank:worker/events@0.1.0;
            import crank:worker/peers@0.1.0;
            import crank:gpu/compute@0.1.0;
            import wasi:keyvalue/store@0.2.0-draft2;
            import wasi:keyvalue/atomics@0.2.0-draft2;
            import wasi:keyvalue/batch@0.2.0-draft2;
            export crank:worker/capabilities@0.1.0;
            export crank:worker/handler@0.1.0;
        }
    ",
    world: "crank:host/host",
    imports: {
        // A host function that waits does so as a future: the guest then holds no thread.
        "crank:worker/events@0.1.0.send": async | trappable,
        "crank:worker/peers@0.1.0.invoke": async | trappable,
        "crank:worker/peers@0.1.0.[method]pending.wait": async | trappable,
        "crank:gpu/compute@0.1.0.[drop]buffer": trappable,
        "crank:gpu/compute@0.1.0.[drop]pipeline": trappable,
        "crank:gpu/compute@0.1.0": async | trappable,
        "wasi:keyvalue/store@0.2.0-draft2.[drop]bucket": trappable,
        "wasi:keyvalue/atomics@0.2.0-draft2.[drop]cas": trappable,
        "wasi:keyvalue/store@0.2.0-draft2": async | trappable,
        "wasi:keyvalue/atomics@0.2.0-draft2": async | trappable,
        "wasi:keyvalue/batch@0.2.0-draft2": async | trappable,
        default: trappable,
    },
    with: {
        "crank:gpu/compute.pipeline": crate::gpu::Pipeline,
        "crank:gpu/compute.buffer": crate::gpu::Buffer,
        "wasi:keyvalue/store.bucket": crate::state::Bucket,
        "wasi:keyvalue/atomics.cas": crate::state::Cas,
    },
    exports: { default: async },
});
