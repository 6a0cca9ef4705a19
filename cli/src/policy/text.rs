//! The text form of a policy: TOML, read strictly. Every error names the file, line and column,
//! and what to write instead.
use anyhow::{Error, anyhow};
use policy::{ConnectRule, Exec, FileRule, ListenRule, Net, Place, Ports, Program, Protocol};
use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use std::fmt;
use std::ops::Range;
use std::path::Path;
use toml::Spanned;

/// A policy's text, for messages about places in it.
#[derive(Clone, Debug)]
pub struct Source {
    name: String,
    text: String,
}

/// Something from a text, with its place there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct At<T> {
    /// The thing.
    pub value: T,
    /// Bytes of the text.
    pub place: Range<usize>,
}

/// Which shared libraries a program may consist of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Libraries {
    /// Those of the root image.
    Image,
    /// These files of the root image.
    Files(Vec<At<String>>),
}

/// A program of a policy that has not been looked up in a root image yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Draft {
    /// Its rules.
    pub program: Program,
    /// Its path.
    pub path: At<String>,
    /// What its file must hash to.
    pub sha256: Option<At<[u8; 32]>>,
    /// Its libraries.
    pub libraries: Libraries,
}

impl Source {
    /// A text with the name that messages give it.
    #[must_use]
    pub fn new(name: &str, text: String) -> Self {
        Self { name: name.into(), text }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// It can't be read, or is not text.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| anyhow!("can't read the policy {}: {error}", path.display()))?;
        Ok(Self::new(&path.display().to_string(), text))
    }

    /// An error at a place: `FILE:LINE:COLUMN: MESSAGE`.
    #[must_use]
    pub fn error(&self, place: &Range<usize>, message: impl fmt::Display) -> Error {
        let before = self.text.get(..place.start).unwrap_or(&self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        anyhow!("{}:{line}:{column}: {message}", self.name)
    }

    /// Reads the policy.
    ///
    /// # Errors
    /// The first mistake.
    pub fn parse(&self) -> Result<Vec<Draft>, Error> {
        let text: Text = toml::from_str(&self.text).map_err(|error| {
            let message = error.message().lines().collect::<Vec<_>>().join("; ");
            self.error(&error.span().unwrap_or(0..0), message)
        })?;
        let mut drafts: Vec<Draft> = Vec::new();
        for program in text.program {
            let draft = self.program(program)?;
            if drafts.iter().any(|d| d.program.path == draft.program.path) {
                let message = format!("'{}' is there twice: join the two", draft.program.path);
                return Err(self.error(&draft.path.place, message));
            }
            drafts.push(draft);
        }
        for draft in &drafts {
            let Exec::Only(paths) = &draft.program.exec else { continue };
            if let Some(path) = paths.iter().find(|p| !drafts.iter().any(|d| d.program.path == **p))
            {
                let message = format!("exec names '{path}', which has no [[program]] of its own");
                return Err(self.error(&draft.path.place, message));
            }
        }
        Ok(drafts)
    }

    fn path(&self, text: &str, place: &Range<usize>) -> Result<String, Error> {
        let path = policy::normalise(text.as_bytes()).filter(|p| p.len() < 4096);
        path.and_then(|p| String::from_utf8(p).ok())
            .ok_or_else(|| self.error(place, format!("'{text}' is no absolute path without '..'")))
    }

    fn paths(&self, words: Spanned<Words>) -> Result<Vec<At<String>>, Error> {
        let place = words.span();
        let paths = words.into_inner().0.into_iter();
        paths.map(|w| Ok(At { value: self.path(&w, &place)?, place: place.clone() })).collect()
    }

    fn program(&self, text: ProgramText) -> Result<Draft, Error> {
        let place = text.path.span();
        let path = self.path(text.path.get_ref(), &place)?;
        let sha256 = text.sha256.map(|sum| self.digest(&sum)).transpose()?;
        let libraries = match text.libraries {
            None => Libraries::Image,
            Some(words) if words.get_ref().is("image") => Libraries::Image,
            Some(words) => Libraries::Files(self.paths(words)?),
        };
        let exec = match text.exec {
            None => Exec::Listed,
            Some(words) if words.get_ref().is("listed") => Exec::Listed,
            Some(words) if words.get_ref().is("none") => Exec::Only(Vec::new()),
            Some(words) => Exec::Only(self.paths(words)?.into_iter().map(|p| p.value).collect()),
        };
        let mut program = Program::with_defaults(&path);
        program.code.verify = text.verify.unwrap_or(true);
        program.code.jit = text.jit.unwrap_or(false);
        program.code.image_libraries = libraries == Libraries::Image;
        program.children = text.children.unwrap_or(true);
        program.exec = exec;
        program.connect = self.connect_rules(text.connect)?;
        program.listen = self.listen_rules(text.listen)?;
        program.files = self.files(text.files)?;
        Ok(Draft { program, path: At { value: path, place }, sha256, libraries })
    }

    fn digest(&self, sum: &Spanned<String>) -> Result<At<[u8; 32]>, Error> {
        let text = sum.get_ref();
        let byte = |n: usize| u8::from_str_radix(text.get(2 * n..2 * n + 2)?, 16).ok();
        let bytes: Option<Vec<u8>> = (0..32).map(byte).collect();
        let plain = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        match bytes.and_then(|b| b.try_into().ok()).filter(|_| plain) {
            Some(value) => Ok(At { value, place: sum.span() }),
            None => Err(self.error(&sum.span(), "a SHA-256 sum is 64 hexadecimal digits")),
        }
    }

    fn connect_rules(&self, rules: Vec<ConnectText>) -> Result<Vec<ConnectRule>, Error> {
        let one = |rule: ConnectText| {
            let place = self.place(rule.place.as_ref(), &[Place::Remote, Place::Local])?;
            let (nets, ports) = (self.nets(rule.to)?, self.ports(rule.ports)?);
            let protocols = self.protocols(rule.protocol)?;
            Ok(ConnectRule { nets, ports, protocols, deny: rule.deny, place })
        };
        rules.into_iter().map(one).collect()
    }

    fn listen_rules(&self, rules: Vec<ListenText>) -> Result<Vec<ListenRule>, Error> {
        let one = |rule: ListenText| {
            let place = self.place(rule.place.as_ref(), &Place::ALL)?;
            let (nets, ports) = (self.nets(rule.on)?, self.ports(rule.ports)?);
            let protocols = self.protocols(rule.protocol)?;
            if let (Place::Both, Some(word)) = (place, &rule.place)
                && protocols != [Protocol::Tcp]
            {
                let text = "only what listens can be in both places: add protocol = \"tcp\"";
                return Err(self.error(&word.span(), text));
            }
            Ok(ListenRule { nets, ports, protocols, deny: rule.deny, place })
        };
        rules.into_iter().map(one).collect()
    }

    fn place(&self, word: Option<&Spanned<String>>, known: &[Place]) -> Result<Place, Error> {
        let Some(word) = word else { return Ok(Place::Remote) };
        let names: Vec<&str> = known.iter().map(|p| p.name()).collect();
        known.iter().find(|p| p.name() == word.get_ref()).copied().ok_or_else(|| {
            let known = names.join(" or ");
            self.error(&word.span(), format!("'{}' is no place: write {known}", word.get_ref()))
        })
    }

    fn nets(&self, words: Option<Spanned<Words>>) -> Result<Vec<Net>, Error> {
        let Some(words) = words else { return Ok(vec![Net::ANY_V4, Net::ANY_V6]) };
        let mut nets = Vec::new();
        for word in &words.get_ref().0 {
            if word == "any" {
                nets.extend([Net::ANY_V4, Net::ANY_V6]);
            } else {
                nets.push(word.parse().map_err(|error| self.error(&words.span(), error))?);
            }
        }
        if nets.is_empty() {
            return Err(self.error(&words.span(), "no range of addresses: leave it out for any"));
        }
        Ok(nets)
    }

    fn ports(&self, words: Option<Spanned<Words>>) -> Result<Ports, Error> {
        let Some(words) = words else { return Ok(Ports::all()) };
        let mut all = Vec::new();
        for word in &words.get_ref().0 {
            let ports: Ports = word.parse().map_err(|e| self.error(&words.span(), e))?;
            all.extend(ports.0);
        }
        if all.is_empty() {
            return Err(self.error(&words.span(), "no port: leave it out for any"));
        }
        Ok(Ports(all))
    }

    fn protocols(&self, words: Option<Spanned<Words>>) -> Result<Vec<Protocol>, Error> {
        let Some(words) = words else { return Ok(vec![Protocol::Tcp, Protocol::Udp]) };
        let one = |word: &String| {
            Protocol::from_name(word).ok_or_else(|| {
                let message = format!("'{word}' is no protocol: write tcp, udp or icmp");
                self.error(&words.span(), message)
            })
        };
        words.get_ref().0.iter().map(one).collect()
    }

    fn files(&self, files: Vec<FileText>) -> Result<Vec<FileRule>, Error> {
        let mut rules: Vec<FileRule> = Vec::new();
        let mut places = Vec::new();
        for file in files {
            let place = file.path.span();
            rules.push(FileRule {
                path: self.path(file.path.get_ref(), &place)?,
                write: file.write,
            });
            places.push(place);
        }
        for (rule, place) in rules.iter().zip(&places) {
            let twice = rules.iter().filter(|other| other.path == rule.path).count() > 1;
            if twice {
                return Err(self.error(place, format!("'{}' is there twice", rule.path)));
            }
            let above = |other: &&FileRule| {
                let rest = rule.path.strip_prefix(&other.path);
                other.write && rest.is_some_and(|rest| rest.starts_with('/'))
            };
            if let Some(other) = rules.iter().find(above).filter(|_| !rule.write) {
                // A symbolic link in the one would lead to the other.
                let message = format!(
                    "'{}' can't be kept from changes below '{}', which has write = true",
                    rule.path, other.path
                );
                return Err(self.error(place, message));
            }
        }
        Ok(rules)
    }
}

/// A word, a number, or a list of them.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Words(Vec<String>);

impl Words {
    fn is(&self, word: &str) -> bool {
        self.0.len() == 1 && self.0.first().is_some_and(|w| w == word)
    }
}

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Words;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a number, or a list of them")
            }

            fn visit_str<E>(self, text: &str) -> Result<Words, E> {
                Ok(Words(vec![text.to_owned()]))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Words, E> {
                Ok(Words(vec![number.to_string()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Words, A::Error> {
                let mut words = Vec::new();
                while let Some(Words(mut one)) = list.next_element()? {
                    words.append(&mut one);
                }
                Ok(Words(words))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    #[serde(default)]
    program: Vec<ProgramText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProgramText {
    path: Spanned<String>,
    sha256: Option<Spanned<String>>,
    libraries: Option<Spanned<Words>>,
    verify: Option<bool>,
    jit: Option<bool>,
    children: Option<bool>,
    exec: Option<Spanned<Words>>,
    #[serde(default)]
    connect: Vec<ConnectText>,
    #[serde(default)]
    listen: Vec<ListenText>,
    #[serde(default)]
    files: Vec<FileText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConnectText {
    to: Option<Spanned<Words>>,
    ports: Option<Spanned<Words>>,
    protocol: Option<Spanned<Words>>,
    place: Option<Spanned<String>>,
    #[serde(default)]
    deny: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListenText {
    on: Option<Spanned<Words>>,
    ports: Option<Spanned<Words>>,
    protocol: Option<Spanned<Words>>,
    place: Option<Spanned<String>>,
    #[serde(default)]
    deny: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    path: Spanned<String>,
    #[serde(default)]
    write: bool,
}
