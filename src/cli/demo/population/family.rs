//! Households: a couple, their children, and often the husband's parents, with a home and mostly work.

use std::collections::HashSet;

use time::{Date, Duration};

use super::names::{TRADITIONS, Tradition, patronymic, surname, uulu};
use super::places::PLACES;
use super::{Job, Person, PersonIndex, Pin, Place, Property, PropertyKind, Residence, Rng, TODAY};
use crate::proto::kg::civil::v1::Sex;

const BANKS: &[&str] = &["«Ала-Тоо Банк» ААКсы", "«Мөңгү Банк» ЖАКсы", "«Теңир Капитал» ААКсы"];

pub(super) struct Builder {
    rng: Rng,
    people: Vec<Person>,
    properties: Vec<Property>,
    pins: HashSet<Pin>,
    cadastral: HashSet<String>,
}

/// What a child takes from its father.
struct Lineage {
    tradition: &'static Tradition,
    surname: &'static str,
    father_name: &'static str,
}

impl Builder {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            people: Vec::new(),
            properties: Vec::new(),
            pins: HashSet::new(),
            cadastral: HashSet::new(),
        }
    }

    pub(super) fn finish(self) -> (Vec<Person>, Vec<Property>) {
        (self.people, self.properties)
    }

    /// One household more.
    pub(super) fn household(&mut self) {
        let tradition = weighted(&mut self.rng, TRADITIONS, |t| t.weight);
        let family_name = self.rng.pick(tradition.surnames);
        let grandfather_name = self.rng.pick(tradition.men);
        let home = self.home();

        // The husband's age sets everybody else's.
        let husband_born = self.day_in(1_958, 2_000);
        let wife_born = husband_born + Duration::days(self.rng.range(-700, 1_800));
        let married = {
            // From the younger's nineteenth birthday on; at the latest at 29.
            let younger = husband_born.max(wife_born);
            (younger + Duration::days(self.rng.range(19 * 366, 27 * 365))).min(TODAY - Duration::days(40))
        };
        let lineage = Lineage { tradition, surname: family_name, father_name: grandfather_name };
        let husband = self.person(Sex::Male, husband_born, Some(&lineage), &home);
        let wife_tradition =
            if self.rng.chance(92) { tradition } else { weighted(&mut self.rng, TRADITIONS, |t| t.weight) };
        let own = Lineage {
            tradition: wife_tradition,
            surname: self.rng.pick(wife_tradition.surnames),
            father_name: self.rng.pick(wife_tradition.men),
        };
        let wife = self.person(Sex::Female, wife_born, Some(&own), &home);
        self.marry(husband, wife, married);
        let takes_his_name = self.rng.chance(75);
        if takes_his_name && !self.people[husband].patronymic.is_empty() {
            self.people[wife].surname = surname(family_name, Sex::Female);
            if self.people[wife].patronymic.is_empty() {
                self.people[wife].patronymic = patronymic(own.father_name, Sex::Female);
            }
        }

        if self.rng.chance(45) {
            self.grandparents(husband, grandfather_name, &lineage, &home);
        }
        self.children(husband, wife, married, &lineage, &home);
        self.work([husband, wife]);
        self.own([husband, wife], &home);
    }

    fn grandparents(&mut self, son: PersonIndex, name: &'static str, lineage: &Lineage, home: &Residence) {
        let son_born = self.people[son].born;
        let father_born = son_born - Duration::days(self.rng.range(23 * 366, 36 * 365));
        let mother_born =
            (father_born + Duration::days(self.rng.range(-200, 1_600))).min(son_born - Duration::days(19 * 366));
        let his = Lineage { father_name: self.rng.pick(lineage.tradition.men), ..*lineage };
        let hers = Lineage {
            surname: self.rng.pick(lineage.tradition.surnames),
            father_name: self.rng.pick(lineage.tradition.men),
            ..*lineage
        };
        let father = self.person(Sex::Male, father_born, Some(&his), home);
        self.people[father].given_name = name;
        self.people[father].surname = lineage.surname.to_owned();
        self.people[father].patronymic = patronymic(his.father_name, Sex::Male);
        let mother = self.person(Sex::Female, mother_born, Some(&hers), home);
        self.people[mother].surname = surname(lineage.surname, Sex::Female);
        self.people[mother].patronymic = patronymic(hers.father_name, Sex::Female);
        let married = son_born - Duration::days(self.rng.range(300, 900));
        self.marry(father, mother, married);
        for parent in [father, mother] {
            self.people[parent].children.push(son);
            let age = self.people[parent].age();
            if age > 70 && self.rng.chance(if age > 85 { 80 } else { 35 }) {
                let earliest = self.people[parent].born + Duration::days(68 * 365);
                self.people[parent].died = Some(self.day_between(earliest, TODAY - Duration::days(30)));
            }
        }
        self.people[son].father = Some(father);
        self.people[son].mother = Some(mother);
    }

    fn children(
        &mut self,
        father: PersonIndex,
        mother: PersonIndex,
        married: Date,
        lineage: &Lineage,
        home: &Residence,
    ) {
        let theirs = Lineage { father_name: self.people[father].given_name, ..*lineage };
        let limit = (self.people[mother].born + Duration::days(43 * 365))
            .min(self.people[father].born + Duration::days(45 * 365))
            .min(TODAY - Duration::days(20));
        let mut born = married + Duration::days(self.rng.range(280, 900));
        let wanted = self.rng.range(1, 4);
        for _ in 0..wanted {
            if born > limit {
                break;
            }
            let sex = if self.rng.chance(50) { Sex::Female } else { Sex::Male };
            let child = self.person(sex, born, Some(&theirs), home);
            self.people[child].father = Some(father);
            self.people[child].mother = Some(mother);
            self.people[child].birth_place = home.place.locality;
            if self.people[child].age() >= 19 {
                self.work([child]);
            }
            self.people[father].children.push(child);
            self.people[mother].children.push(child);
            born += Duration::days(self.rng.range(500, 1_900));
        }
    }

    fn person(&mut self, sex: Sex, born: Date, lineage: Option<&Lineage>, home: &Residence) -> PersonIndex {
        let tradition = lineage.map_or(&TRADITIONS[0], |l| l.tradition);
        let given_name = self.rng.pick(if sex == Sex::Female { tradition.women } else { tradition.men });
        let (surname, patronymic) = match lineage {
            Some(l) if l.tradition.uulu && born.year() >= 1_990 && self.rng.chance(30) => {
                (uulu(l.father_name, sex), String::new())
            }
            Some(l) => (surname(l.surname, sex), patronymic(l.father_name, sex)),
            None => (String::new(), String::new()),
        };
        let mut serial = u32::try_from(self.rng.range(0, 9_999)).unwrap_or(0);
        let mut pin = Pin::new(Some(sex), born, serial);
        while !self.pins.insert(pin) {
            serial += 1;
            pin = Pin::new(Some(sex), born, serial);
        }
        let birth_place = self.rng.pick(PLACES).locality;
        self.people.push(Person {
            pin,
            surname,
            given_name,
            patronymic,
            sex,
            born,
            birth_place,
            died: None,
            residence: Residence { since: home.since.max(born), ..home.clone() },
            spouse: None,
            married: None,
            mother: None,
            father: None,
            children: Vec::new(),
            job: None,
        });
        self.people.len() - 1
    }

    fn marry(&mut self, a: PersonIndex, b: PersonIndex, on: Date) {
        for (one, other) in [(a, b), (b, a)] {
            self.people[one].spouse = Some(other);
            self.people[one].married = Some(on);
        }
    }

    fn work<const N: usize>(&mut self, who: [PersonIndex; N]) {
        for index in who {
            let person = &self.people[index];
            let retired = person.pension().is_some();
            let (born, works) = (person.born, !retired && person.died.is_none());
            if works && self.rng.chance(82) {
                self.people[index].job = Some(Job::draw(&mut self.rng, born));
            }
        }
    }

    fn home(&mut self) -> Residence {
        let place: &'static Place = weighted(&mut self.rng, PLACES, |p| p.weight);
        let flat = place.urban && self.rng.chance(70);
        Residence {
            place,
            street: self.rng.pick(place.streets),
            house: u32::try_from(self.rng.range(1, 240)).unwrap_or(1),
            apartment: flat.then(|| u32::try_from(self.rng.range(1, 96)).unwrap_or(1)),
            since: self.day_in(1_999, 2_025),
        }
    }

    /// The home belongs to one of the couple or to both; some have a plot besides; some rent.
    fn own(&mut self, couple: [PersonIndex; 2], home: &Residence) {
        let owners: Vec<PersonIndex> = match self.rng.range(0, 9) {
            0 => return,
            1..=3 => vec![couple[0]],
            4..=5 => vec![couple[1]],
            _ => couple.to_vec(),
        };
        let kind = if home.apartment.is_some() { PropertyKind::Apartment } else { PropertyKind::House };
        let square_metres =
            if kind == PropertyKind::Apartment { self.rng.range(32, 118) } else { self.rng.range(70, 260) };
        let price = if home.place.urban { self.rng.range(52_000, 140_000) } else { self.rng.range(18_000, 45_000) };
        let mortgage = if self.rng.chance(18) { Some(self.rng.pick(BANKS)) } else { None };
        self.property(kind, home.clone(), square_metres * 100, owners.clone(), mortgage, square_metres * price);
        if self.rng.chance(22) {
            let plot = Residence { house: home.house + 241, apartment: None, ..home.clone() };
            let ares = self.rng.range(4, 90);
            self.property(PropertyKind::Land, plot, ares * 10_000, owners, None, ares * 120_000);
        }
    }

    fn property(
        &mut self,
        kind: PropertyKind,
        residence: Residence,
        area: i64,
        owners: Vec<PersonIndex>,
        mortgage: Option<&'static str>,
        value: i64,
    ) {
        let (region, district) = residence.place.code;
        let cadastral_number = loop {
            let base = format!(
                "{region}-{district:02}-{:02}-{:04}-{:04}",
                self.rng.range(1, 40),
                self.rng.range(1, 400),
                self.rng.range(1, 900)
            );
            let number = match residence.apartment {
                Some(apartment) => format!("{base}-01-{apartment:03}"),
                None => base,
            };
            if self.cadastral.insert(number.clone()) {
                break number;
            }
        };
        let registered = residence.since;
        let area_dm2 = u64::try_from(area).unwrap_or(0);
        self.properties.push(Property {
            cadastral_number,
            residence,
            kind,
            area_dm2,
            owners,
            registered,
            mortgage,
            value,
        });
    }

    fn day_in(&mut self, first_year: i32, last_year: i32) -> Date {
        let first = Date::from_ordinal_date(first_year, 1).unwrap_or(TODAY);
        let last = Date::from_ordinal_date(last_year, 365).unwrap_or(TODAY);
        self.day_between(first, last)
    }

    fn day_between(&mut self, first: Date, last: Date) -> Date {
        first + Duration::days(self.rng.range(0, (last - first).whole_days()))
    }
}

fn weighted<'a, T>(rng: &mut Rng, list: &'a [T], weight: impl Fn(&T) -> u32) -> &'a T {
    let total: i64 = list.iter().map(|item| i64::from(weight(item))).sum();
    let mut left = rng.range(0, total - 1);
    for item in list {
        left -= i64::from(weight(item));
        if left < 0 {
            return item;
        }
    }
    &list[0]
}
