//! WASI 0.2, linked with everything denied: no environment, arguments, files, sockets or names; standard output goes
//! to the guest log; clocks and randomness are our own, so that a call that runs again sees the same (S9). Nothing
//! here waits for real time.

mod clocks;
mod random;
mod stdio;

pub(crate) use clocks::VirtualTime;

use engine::processor::ProcessorError;
use wasmtime::Result;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, HasData, HasSelf, Linker, ResourceTable, ResourceType};
use wasmtime_wasi::cli::{WasiCli, WasiCliView as _};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView as _};
use wasmtime_wasi::p2::bindings::{cli, clocks as wasi_clocks, filesystem, random as wasi_random, sockets, sync};
use wasmtime_wasi::sockets::{WasiSockets, WasiSocketsView as _};
use wasmtime_wasi::{WasiCtxView, WasiView as _};

use crate::task_state::TaskState;

/// The data of `wasi:io`: the table of resources alone.
struct Io;

impl HasData for Io {
    type Data<'a> = &'a mut ResourceTable;
}

fn table(state: &mut TaskState) -> &mut ResourceTable {
    let WasiCtxView { table, .. } = state.ctx();
    table
}

pub(crate) fn add_to_linker(linker: &mut Linker<TaskState>) -> Result<()> {
    type T = TaskState;
    type Own = HasSelf<TaskState>;
    let l = linker;
    wasi_clocks::wall_clock::add_to_linker::<T, Own>(l, |state| state)?;
    wasi_clocks::monotonic_clock::add_to_linker::<T, Own>(l, |state| state)?;
    wasi_random::random::add_to_linker::<T, Own>(l, |state| state)?;
    wasi_random::insecure::add_to_linker::<T, Own>(l, |state| state)?;
    wasi_random::insecure_seed::add_to_linker::<T, Own>(l, |state| state)?;
    cli::stdout::add_to_linker::<T, Own>(l, |state| state)?;
    cli::stderr::add_to_linker::<T, Own>(l, |state| state)?;

    sync::io::error::add_to_linker::<T, Io>(l, table)?;
    sync::io::poll::add_to_linker::<T, Io>(l, table)?;
    sync::io::streams::add_to_linker::<T, Io>(l, table)?;

    cli::exit::add_to_linker::<T, WasiCli>(l, T::cli)?;
    cli::environment::add_to_linker::<T, WasiCli>(l, T::cli)?;
    cli::stdin::add_to_linker::<T, WasiCli>(l, T::cli)?;
    cli::terminal_input::add_to_linker::<T, WasiCli>(l, T::cli)?;
    cli::terminal_output::add_to_linker::<T, WasiCli>(l, T::cli)?;
    cli::terminal_stdin::add_to_linker::<T, WasiCli>(l, T::cli)?;
    cli::terminal_stdout::add_to_linker::<T, WasiCli>(l, T::cli)?;
    cli::terminal_stderr::add_to_linker::<T, WasiCli>(l, T::cli)?;

    filesystem::preopens::add_to_linker::<T, WasiFilesystem>(l, T::filesystem)?;
    sync::filesystem::types::add_to_linker::<T, WasiFilesystem>(l, T::filesystem)?;

    let network = sockets::network::LinkOptions::default();
    sockets::network::add_to_linker::<T, WasiSockets>(l, &network, T::sockets)?;
    sockets::instance_network::add_to_linker::<T, WasiSockets>(l, T::sockets)?;
    sockets::ip_name_lookup::add_to_linker::<T, WasiSockets>(l, T::sockets)?;
    sockets::tcp_create_socket::add_to_linker::<T, WasiSockets>(l, T::sockets)?;
    sync::sockets::tcp::add_to_linker::<T, WasiSockets>(l, T::sockets)?;
    sync::sockets::udp_create_socket::add_to_linker::<T, WasiSockets>(l, T::sockets)?;
    sync::sockets::udp::add_to_linker::<T, WasiSockets>(l, T::sockets)?;
    Ok(())
}

/// The packages that `add_to_linker` defines, in the version 0.2.
const OFFERED: [&str; 6] =
    ["wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:io/", "wasi:random/", "wasi:sockets/"];

/// Defines the parts of WASI that a component imports and this host does not have, as functions that trap: toolchains
/// import more than their programs call.
pub(crate) fn define_missing(linker: &mut Linker<TaskState>, component: &Component) -> Result<()> {
    let engine = component.engine().clone();
    for (name, item) in component.component_type().imports(&engine) {
        let version = name.split_once('@').map_or("", |(_, version)| version);
        let offered = version.starts_with("0.2.") && OFFERED.iter().any(|package| name.starts_with(package));
        let ComponentItem::ComponentInstance(instance) = item.ty else { continue };
        if offered || !name.starts_with("wasi:") {
            continue;
        }
        let mut missing = linker.instance(name)?;
        for (export, item) in instance.exports(&engine) {
            match item.ty {
                ComponentItem::ComponentFunc(_) => {
                    let message = format!("the module called {name}#{export}, which this host does not offer");
                    missing.func_new(export, move |_, _, _, _| {
                        let message = message.clone();
                        Err(ProcessorError::Trap { message, backtrace: String::new() }.into())
                    })?;
                }
                ComponentItem::Resource(_) => missing.resource(export, ResourceType::host::<()>(), |_, _| Ok(()))?,
                _ => {}
            }
        }
    }
    Ok(())
}
