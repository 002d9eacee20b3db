//! A synthetic population: people, families, homes, work and property that agree with one another.
//!
//! **Everybody in it is fictional.** The names are common ones put together by a generator, the numbers are made up,
//! and any likeness to a living person is chance. The same seed gives the same people, on every machine, so that a
//! demo or a test can name a PIN. Nothing here reads the clock: the registers stand at [`TODAY`].
//!
//! What holds of it (and is tested): every PIN validates and is unique; spouses name each other; a child's parents
//! name the child, were between 18 and 45 at its birth, and gave it the father's surname and name; surnames and
//! patronymics have the gender of their bearer; shares of a property add up to one.

mod changes;
mod family;
pub mod names;
pub mod pin;
pub mod places;
mod rng;
pub mod work;

use std::collections::HashMap;

use time::{Date, macros::date};

pub use changes::Change;
pub use pin::Pin;
pub use places::Place;
pub(in crate::cli::demo) use rng::Rng;
pub use work::Job;

use crate::proto::kg::civil::v1::Sex;

/// The day on which the registers stand.
pub const TODAY: Date = date!(2026 - 11 - 01);

/// Index of a person in [`Population::people`].
pub type PersonIndex = usize;

/// The population and what the registers hold on it.
#[derive(Debug)]
pub struct Population {
    /// Everybody, in the order in which households were made.
    pub people: Vec<Person>,
    /// Homes and land.
    pub properties: Vec<Property>,
    by_pin: HashMap<Pin, PersonIndex>,
    by_cadastral_number: HashMap<String, usize>,
    by_owner: HashMap<PersonIndex, Vec<usize>>,
}

/// A person, alive or not.
#[derive(Debug, Clone)]
pub struct Person {
    /// Personal number.
    pub pin: Pin,
    /// Surname in the bearer's gender, or the form with `уулу`/`кызы`.
    pub surname: String,
    /// Given name.
    pub given_name: &'static str,
    /// Patronymic; empty with the `уулу`/`кызы` form.
    pub patronymic: String,
    /// Woman or man.
    pub sex: Sex,
    /// Date of birth; agrees with the PIN.
    pub born: Date,
    /// Town or village of birth.
    pub birth_place: &'static str,
    /// Date of death.
    pub died: Option<Date>,
    /// Where the person is registered.
    pub residence: Residence,
    /// Husband or wife, also of the dead.
    pub spouse: Option<PersonIndex>,
    /// Date of marriage.
    pub married: Option<Date>,
    /// Mother, where the register has her.
    pub mother: Option<PersonIndex>,
    /// Father, where the register has him.
    pub father: Option<PersonIndex>,
    /// Children, eldest first.
    pub children: Vec<PersonIndex>,
    /// Work; none for children, pensioners and those without.
    pub job: Option<Job>,
}

/// A registered address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Residence {
    /// Where it is.
    pub place: &'static Place,
    /// Street, as on the sign.
    pub street: &'static str,
    /// House number.
    pub house: u32,
    /// Apartment, where the house has several.
    pub apartment: Option<u32>,
    /// Since when.
    pub since: Date,
}

/// A home or a plot.
#[derive(Debug, Clone)]
pub struct Property {
    /// Identification code, unique.
    pub cadastral_number: String,
    /// Where it is.
    pub residence: Residence,
    /// What it is.
    pub kind: PropertyKind,
    /// Hundredths of a square metre.
    pub area_dm2: u64,
    /// Owners, with equal shares.
    pub owners: Vec<PersonIndex>,
    /// Date of registration.
    pub registered: Date,
    /// A bank's mortgage.
    pub mortgage: Option<&'static str>,
    /// Value for tax, in som.
    pub value: i64,
}

/// Kind of property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PropertyKind {
    /// A flat in a house of several.
    Apartment,
    /// A house with its plot.
    House,
    /// A plot without a home.
    Land,
}

impl Population {
    /// As many households as asked, some four people each, the same for the same seed.
    pub fn new(seed: u64, households: usize) -> Self {
        let mut builder = family::Builder::new(seed);
        for _ in 0..households {
            builder.household();
        }
        let (people, properties) = builder.finish();
        let mut by_owner: HashMap<PersonIndex, Vec<usize>> = HashMap::new();
        for (index, property) in properties.iter().enumerate() {
            for owner in &property.owners {
                by_owner.entry(*owner).or_default().push(index);
            }
        }
        Self {
            by_pin: people.iter().enumerate().map(|(index, person)| (person.pin, index)).collect(),
            by_cadastral_number: properties
                .iter()
                .enumerate()
                .map(|(index, property)| (property.cadastral_number.clone(), index))
                .collect(),
            by_owner,
            people,
            properties,
        }
    }

    /// A person by PIN.
    pub fn person(&self, pin: &Pin) -> Option<&Person> {
        self.by_pin.get(pin).and_then(|index| self.people.get(*index))
    }

    /// A property by its code.
    pub fn property(&self, cadastral_number: &str) -> Option<&Property> {
        self.by_cadastral_number.get(cadastral_number).and_then(|index| self.properties.get(*index))
    }

    /// What a person owns.
    pub fn properties_of(&self, pin: Pin) -> impl Iterator<Item = &Property> {
        let owned = self.by_pin.get(&pin).and_then(|person| self.by_owner.get(person));
        owned.into_iter().flatten().map(|index| &self.properties[*index])
    }

    /// Those alive and of age on [`TODAY`], in a fixed order.
    pub fn adults(&self) -> impl Iterator<Item = &Person> {
        self.people.iter().filter(|person| person.died.is_none() && person.age() >= 18)
    }
}

impl Person {
    /// Full years on [`TODAY`].
    pub fn age(&self) -> i32 {
        years_between(self.born, TODAY)
    }

    /// `Асанов Бакыт Кубанычбекович`.
    pub fn full_name(&self) -> String {
        format!("{} {} {}", self.surname, self.given_name, self.patronymic).trim_end().to_owned()
    }
}

/// Full years from one day to another.
pub(in crate::cli::demo) fn years_between(from: Date, to: Date) -> i32 {
    let birthday_passed = (u8::from(to.month()), to.day()) >= (u8::from(from.month()), from.day());
    to.year() - from.year() - i32::from(!birthday_passed)
}
