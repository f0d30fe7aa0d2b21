// Bundles src/ into ../static: one script and one style for the page and the widget, and the licences of what is in it.
// `node build.mjs FOLDER` writes there instead, which the test uses that compares the bytes.
import { build } from "esbuild";
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const target = process.argv[2] ?? join(here, "..", "static");
mkdirSync(target, { recursive: true });

const result = await build({
  absWorkingDir: here,
  entryPoints: { explorer: "src/main.js", "explorer-style": "src/explorer.css" },
  outdir: target,
  bundle: true,
  minify: true,
  format: "esm",
  target: ["es2022"],
  charset: "ascii", // the page may be opened before its character set is known
  legalComments: "none", // LICENSES.txt has them whole
  write: false,
});
for (const file of result.outputFiles) {
  const name = file.path.endsWith(".css") ? "explorer.css" : "explorer.js";
  // an inline script must not hold what ends it
  writeFileSync(join(target, name), file.text.replaceAll("</script", "<\\/script"));
}

// All packages that the dependencies need in turn: a library may hold others in its own bundle, unnamed.
const packages = new Set();
const waiting = [here];
while (waiting.length) {
  const about = JSON.parse(readFileSync(join(waiting.pop(), "package.json"), "utf8"));
  for (const name of Object.keys({ ...about.dependencies, ...about.peerDependencies })) {
    const folder = join(here, "node_modules", name);
    if (!packages.has(folder)) waiting.push(folder);
    packages.add(folder);
  }
}
const licences = [...packages].sort().map((folder) => {
  const about = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const file = readdirSync(folder).find((name) => /^licen[cs]e/i.test(name));
  if (!file) throw new Error(`${folder} has no licence text`);
  const text = readFileSync(join(folder, file), "utf8").replace(/\r\n/g, "\n").trim();
  return `${about.name} ${about.version} (${about.license})\n\n${text}\n`;
});
const intro = `explorer.js holds, beside code of sage_kit (Apache-2.0), code of the following packages. The colours of losses are
those of matplotlib's magma (CC0).
`;
const embedded = readFileSync(join(here, "embedded-licences.txt"), "utf8");
writeFileSync(join(target, "LICENSES.txt"), [intro, ...licences, embedded].join(`\n${"-".repeat(80)}\n\n`));
