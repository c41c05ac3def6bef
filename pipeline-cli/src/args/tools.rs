//! `pipeline tools` and `pipeline sessions` on the command line.

use clap::{Args, Subcommand};

/// `pipeline tools`.
#[derive(Debug, Subcommand)]
pub enum Tools {
    /// List the tools of this program and, with a file, those that it declares
    List(ListTools),
    /// Show what a tool is for and what arguments it takes
    Show(OneTool),
    /// Call a tool, without a pipeline around it
    Call(CallTool),
}

/// `pipeline tools list`.
#[derive(Debug, Args)]
pub struct ListTools {
    /// A pipeline file, for its `tools` and `mcp_servers`; its servers are started
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<String>,
}

/// `pipeline tools show`.
#[derive(Debug, Args)]
pub struct OneTool {
    /// The tool's name; `mcp__SERVER` means all tools of that server
    #[arg(value_name = "TOOL")]
    pub name: String,
    /// A pipeline file, for its `tools` and `mcp_servers`
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<String>,
}

/// `pipeline tools call`.
#[derive(Debug, Args)]
pub struct CallTool {
    /// The tool's name
    #[arg(value_name = "TOOL")]
    pub name: String,
    /// Its arguments, a JSON object
    #[arg(value_name = "JSON", default_value = "{}")]
    pub arguments: String,
    /// A pipeline file, for its `tools`, `mcp_servers`, `hooks` and `permissions`
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<String>,
    /// What it may reach
    #[command(flatten)]
    pub permissions: super::Permissions,
}

/// `pipeline sessions`.
#[derive(Debug, Subcommand)]
pub enum Sessions {
    /// List durable conversations
    List,
    /// Print a conversation
    Show(OneSession),
    /// Remove conversations
    Rm(RemoveSessions),
}

/// `pipeline sessions show`.
#[derive(Debug, Args)]
pub struct OneSession {
    /// The session's name
    #[arg(value_name = "NAME")]
    pub name: String,
}

/// `pipeline sessions rm`.
#[derive(Debug, Args)]
pub struct RemoveSessions {
    /// The sessions' names
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
}
