//! The agent as a real program, against a real nats-server, with a simulated station.

#[path = "../../station/src/broker.rs"]
#[expect(
    dead_code,
    unreachable_pub,
    reason = "the station's file is used as it is, and not all of it here"
)]
mod broker;
mod broker_versions;
mod cancel;
mod children;
#[path = "../../station/tests/claiming.rs"]
mod claiming;
mod faults;
mod local;
mod logs;
mod methods;
mod redelivery;
mod restart;
mod shell;
mod shutdown;
mod status;
mod supervision;
mod support;
#[path = "../../station/tests/tracer.rs"]
#[expect(
    dead_code,
    reason = "the station's file is used as it is, and not all of it here"
)]
mod tracer;
mod work;
