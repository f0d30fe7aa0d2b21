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
  metafile: true,
  write: false,
});
for (const file of result.outputFiles) {
  const name = file.path.endsWith(".css") ? "explorer.css" : "explorer.js";
  // an inline script must not hold what ends it
  writeFileSync(join(target, name), file.text.replaceAll("</script", "<\\/script"));
}

const packages = new Set();
for (const path of Object.keys(result.metafile.inputs)) {
  const parts = path.split("node_modules/");
  if (parts.length > 1) {
    const names = parts.at(-1).split("/");
    const name = names[0].startsWith("@") ? `${names[0]}/${names[1]}` : names[0];
    packages.add(`${parts.slice(0, -1).join("node_modules/")}node_modules/${name}`);
  }
}
const licences = [...packages].sort().map((folder) => {
  const about = JSON.parse(readFileSync(join(here, folder, "package.json"), "utf8"));
  const file = readdirSync(join(here, folder)).find((name) => /^licen[cs]e/i.test(name));
  if (!file) throw new Error(`${folder} has no licence text`);
  const text = readFileSync(join(here, folder, file), "utf8").replace(/\r\n/g, "\n").trim();
  return `${about.name} ${about.version} (${about.license})\n\n${text}\n`;
});
const intro = "explorer.js holds, beside code of sage_kit (Apache-2.0), the following packages.\n";
writeFileSync(join(target, "LICENSES.txt"), [intro, ...licences].join(`\n${"-".repeat(80)}\n\n`));
