// The entry of both: a page, which has its data in an element, and a widget (anywidget), whose model has them.

import { App } from "./app.js";
import { bytesOf, unpack } from "./data.js";
import { h, replace } from "./dom.js";

async function mount(root, bytes) {
  root.classList.add("sage-explorer");
  try {
    const app = new App(root, await unpack(bytes));
    await app.start();
    return app;
  } catch (error) {
    replace(root, h("p", { className: "sage-fault", role: "alert" }, `The explorer cannot show this: ${error.message}`));
    console.error(error);
    return null;
  }
}

const holder = document.getElementById("sage-explorer-data");
if (holder) {
  const bytes = bytesOf(holder.textContent);
  holder.remove();
  mount(document.getElementById("sage-explorer"), bytes).then((app) => {
    // for whoever measures or tests a page
    window.sageExplorer = app;
    window.sageReady = performance.now();
    document.documentElement.dataset.ready = app ? "yes" : "no";
  });
}

async function render({ model, el }) {
  const view = model.get("data");
  const height = model.get("height");
  const root = h("div", {});
  if (height) Object.assign(root.style, { height: `${height}px`, overflow: "auto" });
  el.append(root);
  const app = await mount(root, new Uint8Array(view.buffer, view.byteOffset, view.byteLength));
  return () => app?.destroy();
}

export default { render };
