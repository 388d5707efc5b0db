import streamlit as st

st.title("Guide")
