"""Certscope's dashboard: page set-up and navigation."""

import streamlit as st

from backend.home import CHECKOUT, HomeError, settle
from backend.store.snapshot import StoreError

st.set_page_config(page_title="Certscope", page_icon=str(CHECKOUT / "app" / "favicon.png"), layout="wide")
# Streamlit writes white on primary buttons and tags; no blue is dark enough under white and light enough on a dark page. Its boxes around
# formulas are a pixel or two too small, and code does not wrap: both would scroll, which a keyboard cannot do there.
st.html("""<style>
    [data-testid^=stBaseButton-primary], [data-testid=stMultiSelect] [data-tag] * { color: light-dark(#fff, #06222e); }
    [data-testid^=stTable] td * { overflow-wrap: anywhere !important; }
    .katex-display { padding: 4px 4px 8px; }
    [data-testid=stCode] pre, [data-testid=stCode] code { white-space: pre-wrap !important; overflow-wrap: anywhere; }
</style>""")

page = st.navigation(
    [
        st.Page("views/trade_offs.py", title="Trade-offs", icon=":material/show_chart:", default=True),
        st.Page("views/compare.py", title="Compare", icon=":material/compare_arrows:"),
        st.Page("views/certify_image.py", title="Certify an image", icon=":material/image_search:"),
        st.Page("views/runs.py", title="Runs", icon=":material/play_circle:"),
        st.Page("views/playground.py", title="Playground", icon=":material/science:"),
        st.Page("views/guide.py", title="Guide", icon=":material/menu_book:"),
        st.Page("views/run.py", title="Run", icon=":material/play_circle:", visibility="hidden"),
    ],
    position="top",
)
try:
    settle()
    page.run()
except (StoreError, HomeError) as error:
    st.warning(str(error), icon=":material/database_off:")
