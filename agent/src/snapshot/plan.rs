//! A plan as other programs read it: by `--json` and over the endpoint alike.

use serde::Serialize;
use spec::desired::Hold;
use spec::id::{AppName, CommitId};
use spec::pause::Pauses;
use spec::plan::{Plan, Step};

use super::without_secrets;
use crate::difference::Difference;

/// Everything that a plan says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PlanView {
    /// What is to be done, in its order.
    pub steps: Vec<StepView>,
    /// What differs and is only reported.
    pub drift: Vec<StepView>,
    /// What a person has to resolve.
    pub conflicts: Vec<Remark>,
    /// What somebody else changes back again and again.
    pub contested: Vec<Contested>,
    /// What could not be looked at.
    pub unknown: Vec<Remark>,
    /// Applications whose next attempt is not due yet.
    pub waiting: Vec<Waiting>,
    /// Applications that are not brought to the commit.
    pub held_back: Vec<HeldBackView>,
    /// Removals that wait for an acknowledgement.
    pub held: Option<HeldView>,
    /// What a person paused.
    pub paused: Pauses,
    /// What would be done if it were not paused.
    pub postponed: Vec<StepView>,
    /// What is kept before it is overwritten or removed.
    pub kept: Vec<Kept>,
    /// What a person may want to know.
    pub notes: Vec<Note>,
    /// What changes in files.
    pub differences: Vec<DifferenceView>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StepView {
    /// For which application; `None` for what concerns the whole host.
    pub app: Option<AppName>,
    /// What is done.
    pub verb: &'static str,
    /// To what.
    pub object: String,
    /// Why.
    pub why: String,
}

/// Something about a resource that stands in the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Remark {
    /// The application concerned.
    pub app: AppName,
    /// What it is about.
    pub resource: String,
    /// What is the matter.
    pub why: String,
}

/// Something that is not put back any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Contested {
    /// The application concerned.
    pub app: AppName,
    /// What it is.
    pub resource: String,
}

/// An application that failed and is tried again later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// The application.
    pub app: AppName,
    /// When it is tried again.
    pub until: String,
}

/// An application that is not brought to the commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HeldBackView {
    /// The application.
    pub app: AppName,
    /// `failed`, `stuck`, `waits` or `paused`.
    pub why: &'static str,
    /// What it waits for, or what keeps it.
    #[serde(rename = "for")]
    pub what: Option<String>,
    /// The commit of the release that it stays at.
    pub at: Option<CommitId>,
}

/// Removals that wait for an acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HeldView {
    /// What `acknowledge:` has to name.
    pub acknowledge: String,
    /// What would be removed.
    pub removals: Vec<String>,
    /// How many things are owned altogether.
    pub owned: usize,
}

/// Something that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// Where it is.
    pub path: String,
    /// Why it is kept.
    pub why: &'static str,
}

/// Something worth a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    /// The application concerned.
    pub app: AppName,
    /// What it is about.
    pub resource: String,
    /// What there is to know.
    pub text: String,
}

/// What changes in one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DifferenceView {
    /// The file.
    pub path: String,
    /// A unified diff, or a line that says why there is none.
    pub text: String,
}

impl StepView {
    /// Puts a step into words.
    pub fn of(step: &Step) -> StepView {
        let object = without_secrets(&step.action.object());
        StepView { app: step.app.clone(), verb: step.action.verb(), object, why: step.why.to_string() }
    }
}

impl From<Difference> for DifferenceView {
    fn from(difference: Difference) -> DifferenceView {
        DifferenceView { path: difference.path.to_string(), text: difference.text }
    }
}

impl PlanView {
    /// Puts a plan into words. One that says nothing allocates nothing: there is one with every look at the host.
    pub fn of(plan: &Plan) -> PlanView {
        let unknown = plan.unknown.iter();
        let conflicts = plan.conflicts.iter();
        PlanView {
            steps: plan.steps.iter().map(StepView::of).collect(),
            drift: plan.drift.iter().map(StepView::of).collect(),
            conflicts: conflicts.map(|it| remark(&it.app, &it.resource, &it.why)).collect(),
            contested: (plan.contested.iter())
                .map(|(id, app)| Contested { app: app.clone(), resource: id.to_string() })
                .collect(),
            unknown: unknown.map(|it| remark(&it.app, &it.resource, &it.why)).collect(),
            waiting: (plan.waiting.iter())
                .map(|(app, until)| Waiting { app: app.clone(), until: until.to_string() })
                .collect(),
            held_back: plan.held_back.iter().map(|(app, held)| held_back(app, held)).collect(),
            held: plan.held.as_ref().map(|held| HeldView {
                acknowledge: held.digest.clone(),
                removals: held.removals.iter().map(ToString::to_string).collect(),
                owned: held.owned,
            }),
            paused: plan.pauses.clone(),
            postponed: plan.postponed.iter().map(StepView::of).collect(),
            kept: (plan.keeps.iter()).map(|(path, keep)| Kept { path: path.to_string(), why: keep.as_str() }).collect(),
            notes: (plan.notes.iter())
                .map(|it| Note { app: it.app.clone(), resource: it.resource.to_string(), text: it.text.clone() })
                .collect(),
            differences: Vec::new(),
        }
    }

    /// Says whether nothing of `app` is changed, since a person said so.
    pub fn is_paused(&self, app: &AppName) -> bool {
        self.paused.host.is_some() || self.paused.apps.contains_key(app)
    }

    /// Adds what changes in files.
    #[must_use]
    pub fn with(mut self, differences: impl IntoIterator<Item = Difference>) -> PlanView {
        self.differences.extend(differences.into_iter().map(DifferenceView::from));
        self
    }
}

fn remark(app: &AppName, resource: &impl ToString, why: &str) -> Remark {
    Remark { app: app.clone(), resource: resource.to_string(), why: without_secrets(why) }
}

fn held_back(app: &AppName, held: &spec::desired::HeldBack) -> HeldBackView {
    let (why, what) = match &held.why {
        Hold::Bad => ("failed", None),
        Hold::Paused => ("paused", None),
        Hold::Stuck(what) => ("stuck", Some(without_secrets(what))),
        Hold::Waits(what) => ("waits", Some(without_secrets(what))),
    };
    HeldBackView { app: app.clone(), why, what, at: held.commit.clone() }
}
