//! `diptych preview PIPELINE`: real pairs, or windows, as one picture.
use std::{fs::File, io::Read as _, path::Path};

use super::{
    Named,
    captioned_sheet::write_captioned_sheet,
    choose::choose,
    contact_sheet::write_contact_sheet,
    data::Data,
    first_items::{first_captioned, first_documents, first_views, first_windows},
    output,
    token_sheet::write_token_sheet,
    trace_sheet::write_trace_sheet,
};
use crate::{
    error::{Error, Result, Stage},
    pair::{PairSettings, sentences::Sentences},
    pipeline::Plan,
    scan::epoch::EpochPlan,
};

/// Documents whose sentences are printed below the picture.
const DOCUMENTS_SAID: usize = 3;

/// Writes the contact sheet of the first rows of a batch that training would see.
///
/// # Errors
/// Mistakes of the pipeline, the data's, or the file cannot be written.
pub fn run(named: &Named, to: &Path, pairs: usize) -> Result<()> {
    let plan = named.plan()?;
    if to.exists() && !is_png(to) {
        let reason = "is there already and no PNG; name another file";
        return Err(Error::at(Stage::CommandLine, to.display().to_string(), reason));
    }
    let data = Data::open(&plan)?;
    let epochs = data.training(&plan, choose(&data, &plan)?.mixture, None)?;
    let drawn = draw(&data, &plan, &epochs, to, pairs)?;
    let what = match &plan.pipeline.pair {
        PairSettings::TwoViews(_) => format!("pairs of {}-pixel views", plan.side_pixels),
        PairSettings::ImageText(_) => format!("images of {} pixels with their texts", plan.side_pixels),
        PairSettings::OneView(_) => format!("images, each {}", plan.row_in_words()),
        PairSettings::Sentences(_) => format!("documents, each {}", plan.row_in_words()),
        _ => format!("series, each {}", plan.row_in_words()),
    };
    if drawn < pairs {
        super::progress::log(&format!("the selection has {drawn} items, so there are no {pairs} {what} to draw"));
    }
    output::line(&format!("{}: {drawn} {what}", to.display()))?;
    match &plan.pipeline.pair {
        PairSettings::ContextFuture(_) | PairSettings::PastFuture(_) => output::line(
            "each panel is a window, time from left to right, a lane per channel from the top; a channel has one scale over \
             the sheet, and the grey line is zero",
        ),
        PairSettings::Sentences(pair) => say(&data, &plan, &epochs, &Sentences::training(pair), drawn),
        _ => Ok(()),
    }
}

/// Prints what the ids of the first windows stand for, a sentence a line.
fn say(data: &Data, plan: &Plan, epochs: &EpochPlan, kernel: &Sentences, drawn: usize) -> Result<()> {
    let (ids, [_, windows, sentences, tokens]) = first_documents(data, plan, epochs, drawn.min(DOCUMENTS_SAID))?;
    for (at, window) in ids.chunks((sentences * tokens).max(1)).enumerate() {
        output::line(&format!("\ndocument {}, window {}", at / windows + 1, at % windows + 1))?;
        for sentence in kernel.texts_of(window) {
            output::line(&format!("  {sentence}"))?;
        }
    }
    Ok(())
}

fn is_png(path: &Path) -> bool {
    let mut magic = [0; 8];
    File::open(path).is_ok_and(|mut file| file.read_exact(&mut magic).is_ok()) && magic == *b"\x89PNG\r\n\x1a\n"
}

/// The same for data that is open; returns how many items were drawn.
pub(super) fn draw(data: &Data, plan: &Plan, epochs: &EpochPlan, to: &Path, pairs: usize) -> Result<usize> {
    let views = match &plan.pipeline.pair {
        PairSettings::TwoViews(_) => 2,
        PairSettings::OneView(_) => 1,
        PairSettings::ImageText(_) => {
            let (pixels, captions) = first_captioned(data, plan, epochs, pairs)?;
            write_captioned_sheet(to, &pixels, &captions, plan.side_pixels as usize)?;
            return Ok(captions.len());
        }
        PairSettings::ContextFuture(_) | PairSettings::PastFuture(_) => {
            let (values, shape) = first_windows(data, plan, epochs, pairs)?;
            write_trace_sheet(to, &values, shape)?;
            return Ok(shape[0]);
        }
        PairSettings::Sentences(_) => {
            let (ids, shape) = first_documents(data, plan, epochs, pairs)?;
            write_token_sheet(to, &ids, shape)?;
            return Ok(shape[0]);
        }
    };
    let (pixels, drawn) = first_views(data, plan, epochs, pairs)?;
    write_contact_sheet(to, &pixels, drawn, views, plan.side_pixels as usize)?;
    Ok(drawn)
}
