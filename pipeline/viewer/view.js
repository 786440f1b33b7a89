// Sets what the viewer shows at first, and stands in for the server that the client expects. VIEW is written above.
(() => {
  "use strict";
  const here = new URL(".", document.currentScript.src).href;

  // Sources are relative to this page, so that the same files work at any address.
  const absolute = (value) => {
    if (typeof value === "string") return value.startsWith("@") ? here + value.slice(1) : value;
    if (Array.isArray(value)) return value.map(absolute);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, absolute(inner)]));
  };

  // Zooms so that the whole specimen fits into the window; sizes are in units of a voxel's smallest side.
  const fit = (state) => {
    const { x, y, z, side_px, is_volume, margin } = VIEW.extent;
    let width = Math.max(window.innerWidth - side_px, 200);
    let height = Math.max(window.innerHeight - 60, 200); // the bars on top
    if (is_volume) [width, height] = [width / 2, height / 2];
    const shown = is_volume ? [[x, y], [x, z], [z, y]] : [[x, y]];
    const scales = shown.map(([across, down]) => Math.max(across / width, down / height));
    state.crossSectionScale = Math.max(...scales) * margin;
    if (is_volume) state.projectionScale = 0.8 * Math.hypot(x, y, z);
    return state;
  };

  const encode = (text) =>
    encodeURI(text).replace(/[!'()*;,#]/g, (c) => "%" + c.charCodeAt(0).toString(16).toUpperCase());

  // A saved view holds the address that its files had then. The files are beside this page now, so use this address.
  const rewriteAddress = () => {
    let text;
    try {
      text = decodeURIComponent(location.hash.slice(2));
    } catch {
      return; // the viewer did not write this address
    }
    const found = text.replace(/https?:\/\/[^"'|\s]+?\/v\/[^"'|\s/]+\/(?=(?:layers|objects)\/)/g, here);
    if (found !== text) history.replaceState(null, "", "#!" + encode(found));
  };
  if (location.hash.startsWith("#!")) rewriteAddress();

  // The address holds the view. If it holds one already, keep that; else begin with ours.
  if (!location.hash.startsWith("#!")) {
    const state = fit({ ...VIEW.state, layers: VIEW.state.layers.map((layer) => ({ ...layer, source: absolute(layer.source) })) });
    history.replaceState(null, "", "#!" + encode(JSON.stringify(state)));
  }

  // The client asks a server for its settings. It gets them from here at once; nothing is sent.
  window.EventSource = class {
    constructor() {
      setTimeout(() => {
        this.onopen?.();
        this.onmessage?.({ data: JSON.stringify({ k: "c", s: VIEW.config, g: "1" }) });
      });
    }
    close() {}
  };
  const fetchFile = window.fetch;
  window.fetch = (resource, options) =>
    options?.method === "POST" ? Promise.resolve(new Response('{"g":"1"}')) : fetchFile(resource, options);

  // The scale bar: a darker background makes it legible on white. Without a pixel size it counts pixels (neuroglancer
  // would write "1.5 k" without a unit). If only some axes have a unit, the others get no bar: planes are no length.
  const draws = CanvasRenderingContext2D.prototype;
  const { fillRect, fillText } = draws;
  const empty = new WeakSet();
  draws.fillRect = function (...box) {
    if (empty.has(this.canvas)) return;
    if (this.fillStyle === "rgba(0, 0, 0, 0.3)") this.fillStyle = "rgba(0, 0, 0, 0.6)";
    fillRect.apply(this, box);
  };
  draws.fillText = function (text, ...place) {
    const found = /^(.*?)([\d.]+) ([pn\u00b5\u03bcmkMG]?)$/.exec(text);
    if (found && VIEW.extent.has_units) {
      empty.add(this.canvas);
      this.clearRect(0, 0, this.canvas.width, this.canvas.height);
      return;
    }
    if (found) {
      const factor = { p: 1e-12, n: 1e-9, "\u00b5": 1e-6, "\u03bc": 1e-6, m: 1e-3, "": 1, k: 1e3, M: 1e6, G: 1e9 }[found[3]];
      text = `${found[1]}${+(found[2] * factor).toPrecision(3)} px`;
    }
    fillText.call(this, text, ...place);
  };

  // Ctrl and the wheel change the plane. The browser would also enlarge the page, so stop that.
  window.addEventListener("wheel", (event) => event.ctrlKey && event.preventDefault(), { passive: false });
})();
