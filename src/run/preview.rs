//! `diptych preview PIPELINE`: real pairs as one picture.
use std::{fs::File, io::Read as _, path::Path};

use super::{
    Named,
    choose::choose,
    contact_sheet::write_contact_sheet,
    data::{Data, first_pairs},
    output,
};
use crate::{
    error::{Error, Result, Stage},
    pipeline::Plan,
    scan::epoch::EpochPlan,
};

/// Writes the contact sheet of the first pairs that training would see.
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
    if drawn < pairs {
        super::progress::log(&format!("the selection has {drawn} items, so there are no {pairs} pairs to draw"));
    }
    output::line(&format!("{}: {drawn} pairs of {}-pixel views", to.display(), plan.side_pixels))
}

fn is_png(path: &Path) -> bool {
    let mut magic = [0; 8];
    File::open(path).is_ok_and(|mut file| file.read_exact(&mut magic).is_ok()) && magic == *b"\x89PNG\r\n\x1a\n"
}

/// The same for data that is open; returns how many pairs were drawn.
pub(super) fn draw(data: &Data, plan: &Plan, epochs: &EpochPlan, to: &Path, pairs: usize) -> Result<usize> {
    let (pixels, drawn) = first_pairs(data, plan, epochs, pairs)?;
    write_contact_sheet(to, &pixels, drawn, 2, plan.side_pixels as usize)?;
    Ok(drawn)
}
