//! stub
use std::path::{Path,PathBuf}; use std::time::Duration; use std::net::SocketAddr; use crate::limits::Limits; use crate::capability::Constraints;
#[derive(Default)] pub struct Flags { pub listen: Option<SocketAddr> }
#[derive(Clone,Copy)] pub enum LogFormat { Text, Json }
pub struct Config; pub struct Op;
impl Config { pub fn load(_:Flags,_:Option<&Path>,_:impl Iterator<Item=(String,String)>)->Result<Self,String>{Ok(Config)}
 pub fn worker(&self,_:&str)->Option<&Op>{None} pub fn limits_of(&self,_:&str,c:Option<&Constraints>)->Limits{ Limits{memory:(c.and_then(|c|c.max_memory_mb).unwrap_or(256) as u64)<<20,wall:Duration::from_secs(30),cpu:Duration::from_secs(30),output:32<<20}}
 pub fn component_bytes(&self)->u64{64<<20} pub fn cache_dir(&self)->PathBuf{"/tmp/crankcache".into()} pub fn instances(&self)->u32{1000} }
