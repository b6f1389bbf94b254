//! stub
#[derive(Clone,Copy,Debug)]
pub enum Interface { Log, Events, WasiIo, WasiClocks, WasiRandom, WasiCli, WasiFilesystemTypes }
pub struct Grants(Vec<Interface>);
impl Grants { pub fn interfaces(&self) -> impl Iterator<Item = Interface> + '_ { self.0.iter().copied() }
 pub fn powerless() -> Self { use Interface::*; Self(vec![Log, Events, WasiIo, WasiClocks, WasiRandom, WasiCli, WasiFilesystemTypes]) } }
pub fn decide(_:&str,_:&str,_:&[String],_:&[crate::capability::Capability],_:&crate::config::WorkerSettings)->Result<Grants,Vec<String>>{Ok(Grants::powerless())}
