// Which stage a job is in. A job says what it does in the words of its progress bars.

export const STAGES = ["mine", "raft", "validate", "train", "eval", "export", "deploy"];

const TASKS = [
  ["mine", /^(cloning|mining|linking)/],
  ["raft", /^asking/],
  ["validate", /^validating/],
  ["train", /^(training|reference|reading)| init$/],
  ["eval", /(answers|answer loss|latency|judging|calibration)$|^repo_tests/],
  ["export", /^(writing|weighing|parity)/],
  ["deploy", /^(hash|upload|create|smoke)/],
];

/** The stages that a job will go through. */
export function stagesOf(job) {
  const rows = job.source.startsWith("file-"); // finished rows: training alone
  return STAGES.filter((name) => {
    if (name === "export") return job.export || Boolean(job.deploy);
    if (name === "deploy") return Boolean(job.deploy);
    return name === "train" || !rows;
  });
}

/** The stage that a job is in, or was in when it ended; "" where nothing was said. */
export function stageOf(job) {
  const { stage, step } = job.progress;
  const found = TASKS.find(([, words]) => words.test(stage))?.[0] || "";
  if (found === "eval" && step == null) return "validate"; // losses under the base, before training
  if (found) return found;
  return step == null ? "" : "train";
}

/**
 * @returns for each stage { name, state: "done" | "now" | "stopped" | "halted" | "todo" }
 */
export function path(job) {
  const names = stagesOf(job);
  if (job.state === "succeeded") return names.map((name) => ({ name, state: "done" }));
  const at = names.indexOf(stageOf(job));
  const here = { running: "now", failed: "stopped" }[job.state] || "halted";
  return names.map((name, place) => ({ name, state: place < at ? "done" : place === at ? here : "todo" }));
}

/** Share of the present task that is done, 0 to 1; null where it is not known. */
export function share(job) {
  const { done, total } = job.progress;
  return total > 0 ? Math.min(1, done / total) : null;
}

/** What a job does just now, in a few words. */
export function doing(job) {
  const { stage, done, total, step } = job.progress;
  if (job.state === "succeeded") return verdict(job);
  if (job.state === "failed") return "";
  if (job.state === "queued") return job.attempt ? "waits for its next try" : "waits for its turn";
  if (job.state === "running" && job.wanted !== "run") return job.wanted === "pause" ? "stops at the next step" : "is being cancelled";
  const at = stage ? (total ? `${stage} ${done}/${total}` : stage) : step != null ? `step ${step}` : "";
  if (job.state !== "running") return at && `stopped at ${at}`;
  return at || "starts";
}

/** How a job that is done came out. */
function verdict(job) {
  const { verdict: found, deploy } = job.result?.metrics || {};
  const served = deploy?.name && !deploy.dry_run && `served as ${deploy.name}`;
  return [found?.outcome, served].filter(Boolean).join(" · ") || "trained";
}
