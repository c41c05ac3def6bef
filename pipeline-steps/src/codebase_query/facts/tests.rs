//! Small sources of each language, and what is found in them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use super::*;

fn facts(language: Language, source: &str) -> Facts {
    let read = |detail| read(source.as_bytes(), language, Dialect::Plain, detail, &|| false).unwrap();
    let (facts, mut less) = (read(Detail::Paths), read(Detail::Definitions));
    // What is passed over has nothing to tell but paths.
    let mut without = facts.imports.clone();
    for all in [&mut without, &mut less.imports] {
        all.retain(|i| i.form != Form::Path);
    }
    assert_eq!((&less.definitions, &less.imports), (&facts.definitions, &without));
    facts
}

/// `line kind parent/name`, with `-` before what is private.
fn told(facts: &Facts) -> Vec<String> {
    let one = |d: &Definition| {
        let kind = match d.kind {
            Kind::Type(kind) => format!("{kind:?}").to_lowercase(),
            kind => format!("{kind:?}").to_lowercase(),
        };
        let parent = d.parent.as_ref().map_or_else(String::new, |p| format!("{p}/"));
        format!("{}{} {kind} {parent}{}", if d.is_public { "" } else { "-" }, d.line, d.name)
    };
    facts.definitions.iter().map(one).collect()
}

/// `line form module: names = alias`.
fn imported(facts: &Facts) -> Vec<String> {
    let one = |i: &Import| {
        let names = if i.names.is_empty() { String::new() } else { format!(": {}", i.names.join(", ")) };
        let alias = i.alias.as_ref().map_or_else(String::new, |a| format!(" = {a}"));
        format!("{} {:?} {}{names}{alias}", i.line, i.form, i.module)
    };
    facts.imports.iter().filter(|i| i.form != Form::Path).map(one).collect()
}

#[test]
fn rust() {
    let source = "\
use std::{fs, io::{self, Read as R}, *};
use crate::a::b;
pub use ::serde::Serialize;
extern crate alloc as al;
mod file;
#[path = \"odd.rs\"]
mod other;
pub async unsafe fn free<T>(x: T) -> T where T: Copy { fn inner() {} x }
struct Unit;
pub(crate) struct Pair(u8);
pub enum Choice { A { b: u8 } }
union Bits { a: u8 }
type Short = Vec<u8>;
pub trait Speak: Sized {
    type Word;
    fn say(&self);
    fn shout(&self) { self.say() }
}
impl<T> Speak for a::Map<T> {
    type Word = T;
    fn say(&self) {}
}
impl Pair { pub const fn new() -> Self { Self(0) } fn hidden(&self) {} }
#[macro_export]
macro_rules! shout { ($x:expr) => { fn not_one() {} } }
extern \"C\" { fn outside(); }
mod inline { use super::*; pub fn deep() {} }
";
    let facts = facts(Language::Rust, source);
    assert!(!facts.is_broken);
    assert_eq!(
        told(&facts),
        [
            "-5 module file",
            "-7 module other",
            "8 function free",
            "-8 function free/inner",
            "-9 struct Unit",
            "10 struct Pair",
            "11 enum Choice",
            "-12 union Bits",
            "-13 type Short",
            "14 trait Speak",
            "15 type Speak/Word",
            "16 method Speak/say",
            "17 method Speak/shout",
            "20 type Map/Word",
            "21 method Map/say",
            "23 method Pair/new",
            "-23 method Pair/hidden",
            "25 macro shout",
            "-26 function outside",
            "-27 module inline",
            "27 function inline/deep",
        ]
    );
    assert_eq!(
        imported(&facts),
        [
            "1 Use std: fs",
            "1 Use std::io: self",
            "1 Use std::io: Read = R",
            "1 Use std: *",
            "2 Use crate::a: b",
            "3 Use serde: Serialize",
            "4 ExternCrate alloc = al",
            "5 Mod file",
            "7 Mod other = odd.rs",
            "27 Use super: *",
        ]
    );
    let free = facts.definitions.iter().find(|d| d.name == "free").unwrap();
    assert_eq!(free.signature, "pub async unsafe fn free<T>(x: T) -> T where T: Copy");
    assert_eq!(facts.imports.last().unwrap().depth, 1);
}

#[test]
fn python() {
    let source = "\
from __future__ import annotations
import os, os.path as p
from . import sibling
from ..pkg.mod import (a,  # first
    b as c)
from x import *

@decorated
async def run(x: int = 1, *args) -> None:
    def inner(): pass
    import late
class _Private(Base):
    class Nested:
        def __init__(self): pass
    @property
    def value(self): return 1
    def _hidden(self): pass
if True:
    def conditional(): pass
square = lambda x: x * x
";
    let facts = facts(Language::Python, source);
    assert_eq!(
        told(&facts),
        [
            "9 function run",
            "10 function run/inner",
            "-12 class _Private",
            "13 class _Private/Nested",
            "14 method _Private.Nested/__init__",
            "16 method _Private/value",
            "-17 method _Private/_hidden",
            "19 function conditional",
        ]
    );
    assert_eq!(
        imported(&facts),
        [
            "1 From __future__: annotations",
            "2 Import os",
            "2 Import os.path = p",
            "3 From .: sibling",
            "4 From ..pkg.mod: a, b",
            "6 From x: *",
            "11 Import late",
        ]
    );
    assert_eq!(facts.definitions[0].signature, "async def run(x: int = 1, *args) -> None");
}

#[test]
fn go() {
    let source = "\
package main
import \"fmt\"
import (
\t. \"math\"
\tj \"encoding/json\"
\t_ \"embed\"
)
type Point struct{ X int }
type (
\treader interface { Read(p []byte) (int, error) }
\tID = string
\tKind int
)
func main() { f := func() {}; f() }
func (p *Point) Move(dx int) {}
func (l List[T]) len() int { return 0 }
func Map[K comparable](m map[K]int) {}
";
    let facts = facts(Language::Go, source);
    assert_eq!(
        told(&facts),
        [
            "8 struct Point",
            "-10 interface reader",
            "10 method reader/Read",
            "11 type ID",
            "12 type Kind",
            "-14 function main",
            "15 method Point/Move",
            "-16 method List/len",
            "17 function Map",
        ]
    );
    assert_eq!(
        imported(&facts),
        ["2 Import fmt", "4 Import math: *", "5 Import encoding/json = j", "6 Import embed = _"]
    );
}

#[test]
fn javascript() {
    let source = "\
const fs = require('fs'), { a, b: c } = require('./ab');
function* gen() {}
const add = (x, y) => x + y, Klass = class { static #secret() {} };
class Shape extends Base {
  constructor() { super(); }
  get area() { return 0 }
  handler = () => { function deep() {} };
}
Shape.prototype.scale = function (n) {};
exports.run = async () => {};
module.exports = function named() {};
const object = { method() {}, arrow: () => 1, plain: 2 };
setTimeout(function tick() {}, 1);
import('./lazy.js');
";
    let facts = facts(Language::JavaScript, source);
    assert_eq!(
        told(&facts),
        [
            "2 function gen",
            "3 function add",
            "3 class Klass",
            "-3 method Klass/#secret",
            "4 class Shape",
            "5 method Shape/constructor",
            "6 method Shape/area",
            "7 method Shape/handler",
            "-7 function Shape.handler/deep",
            "9 method Shape/scale",
            "10 function run",
            "11 function named",
            "12 method method",
            "12 method arrow",
            "13 function tick",
        ]
    );
    assert_eq!(imported(&facts), ["1 Require fs", "1 Require ./ab: a, b", "14 Dynamic ./lazy.js"]);
}

#[test]
fn typescript() {
    let source = "\
import def, { type T, x as y } from './a';
import * as all from \"b\";
import 'side-effect';
import type { Only } from './types';
import old = require('old');
export * from './c';
export * as ns from './d';
export { e as f } from './e';
export interface Shape<T> extends Base { area(): number; readonly side: number }
export abstract class Square implements Shape<number> {
  private secret(): void {}
  protected abstract grow(): void;
  static make = (): Square => new Square();
}
export enum Color { Red }
type Alias = string | number;
declare function outside(a: number): void;
export function over(a: string): void;
export function over(a: any): void {}
namespace Deep.Inner { export function held() {} function kept() {} }
declare module 'ambient' { export class C {} }
export default function () {}
const local = () => {};
const later = () => {};
export { later };
";
    let facts = facts(Language::TypeScript, source);
    assert!(!facts.is_broken);
    assert_eq!(
        told(&facts),
        [
            "9 interface Shape",
            "9 method Shape/area",
            "10 class Square",
            "-11 method Square/secret",
            "-12 method Square/grow",
            "13 method Square/make",
            "15 enum Color",
            "-16 type Alias",
            "-17 function outside",
            "18 function over",
            "19 function over",
            "-20 module Deep.Inner",
            "-20 function Deep.Inner/held",
            "-20 function Deep.Inner/kept",
            "-21 module ambient",
            "-21 class ambient/C",
            "-23 function local",
            "24 function later",
        ]
    );
    assert_eq!(
        imported(&facts),
        [
            "1 Import ./a: default, T, x = def",
            "2 Import b: * = all",
            "3 Import side-effect",
            "4 Import ./types: Only",
            "5 Require old = old",
            "6 Export ./c: *",
            "7 Export ./d: * = ns",
            "8 Export ./e: e = f",
        ]
    );
}

#[test]
fn tsx() {
    let source = "export const App = () => <div onClick={() => go<string>()}>{names.map((n) => <b>{n}</b>)}</div>;\n\
                  export default class Page extends Component<Props> { render() { return <App/> } }\n";
    let facts =
        read(source.as_bytes(), Language::TypeScript, Dialect::Jsx, Detail::Paths, &|| false).unwrap();
    assert!(!facts.is_broken);
    assert_eq!(told(&facts), ["1 function App", "2 class Page", "2 method Page/render"]);
}

#[test]
fn elixir() {
    let source = "\
defmodule App.Users do
  use GenServer, restart: :transient
  alias App.{Repo, Mail}
  alias App.Long.Name, as: Short
  import Ecto.Query, only: [from: 2]
  require Logger
  defstruct [:name]
  @doc \"def not_this\"
  def get(id) when is_integer(id), do: Repo.get(id)
  def get(nil), do: nil
  def get(a, b) do a + b end
  def all, do: []
  defp hidden(x), do: x
  defmacro magic(x), do: quote do unquote(x) end
  defguard is_odd(x) when rem(x, 2) == 1
  def a <~> b, do: {a, b}
  defmodule Inner do
    def deep(), do: :ok
  end
end
defprotocol Size do
  def size(x)
end
defimpl Size, for: BitString do
  def size(x), do: byte_size(x)
end
";
    let facts = facts(Language::Elixir, source);
    assert_eq!(
        told(&facts),
        [
            "1 module App.Users",
            "7 struct App.Users/App.Users",
            "9 function App.Users/get",
            "11 function App.Users/get",
            "12 function App.Users/all",
            "-13 function App.Users/hidden",
            "14 macro App.Users/magic",
            "15 macro App.Users/is_odd",
            "16 function App.Users/<~>",
            "17 module App.Users/Inner",
            "18 function App.Users.Inner/deep",
            "21 protocol Size",
            "22 function Size/size",
            "24 implementation Size.BitString",
            "25 function Size.BitString/size",
        ]
    );
    assert_eq!(
        imported(&facts),
        [
            "2 Use GenServer",
            "3 Alias App.Repo",
            "3 Alias App.Mail",
            "4 Alias App.Long.Name = Short",
            "5 Import Ecto.Query",
            "6 Require Logger",
        ]
    );
}

/// Naive: a walk that calls itself ends the program on a file that somebody made for it.
#[test]
fn a_deep_file_is_read() {
    let deep = format!("x = {}1{}\ndef after(): pass\n", "(".repeat(100_000), ")".repeat(100_000));
    let facts = facts(Language::Python, &deep);
    assert!(facts.is_broken || told(&facts) == ["2 function after"]);
    let deep = format!("fn f() {{ {}{} }}\nfn g() {{}}\n", "{ fn x() ".repeat(3000), "}".repeat(3000));
    read(deep.as_bytes(), Language::Rust, Dialect::Plain, Detail::Paths, &|| false).unwrap();
}

#[test]
fn a_broken_file_gives_what_can_be_read() {
    let facts = facts(Language::Rust, "fn good() {}\nfn bad( {{{ \u{0}\nstruct\nfn also_good() {}\n");
    assert!(facts.is_broken);
    assert!(told(&facts).contains(&"-1 function good".to_owned()), "{:?}", told(&facts));
    let bytes = [b"def \xff\xfe(): pass\ndef ok(): pass\n".as_slice(), &[0xC3]].concat();
    let facts = read(&bytes, Language::Python, Dialect::Plain, Detail::Paths, &|| false).unwrap();
    assert!(facts.definitions.iter().any(|d| d.name == "ok"));
}

#[test]
fn a_search_that_is_stopped_ends_within_a_file() {
    let long = "fn f() { let x = 1 + 2; }\n".repeat(20_000);
    assert_eq!(
        read(long.as_bytes(), Language::Rust, Dialect::Plain, Detail::Paths, &|| true).err(),
        Some(GaveUp)
    );
}

#[test]
fn what_the_grammar_of_typescript_does_not_take_is_read_all_the_same() {
    let source = "\
export const over: {
  (a: string): Box<string>
  /**
   * Comments may stand between.
   */
  <A, B>(a: A, f: (b: B) => A): Box<A>
} = (a) => a
type Missing<U extends string> = `no \\`Self\\`: ${U}`
export interface After { last(): void }
";
    let facts = facts(Language::TypeScript, source);
    assert!(!facts.is_broken);
    assert_eq!(
        told(&facts),
        ["1 function over", "-8 type Missing", "9 interface After", "9 method After/last"]
    );
}
