using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [(name = "main", worker = .greet)],
  sockets = [(name = "http", http = (), service = "main")],
);

const greet :Workerd.Worker = (
  modules = [(name = "greet.js", esModule = embed "greet.js")],
  compatibilityDate = "2026-01-01",
);
