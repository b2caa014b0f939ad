// The chart of DATA, a Vega-Lite spec.

await vegaEmbed("#chart", DATA, { renderer: "svg", actions: false, tooltip: { disableDefaultStyle: true } });
document.querySelector("#hint").hidden = false;
document.documentElement.dataset.ready = "";
